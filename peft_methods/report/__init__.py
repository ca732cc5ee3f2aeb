"""Comparisons for people: text tables, the dry-run plan, the HTML report, charts and the paper."""
