"""Comparisons for people: terminal, HTML, charts and paper."""
