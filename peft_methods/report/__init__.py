"""Comparisons as text: the table (terminal, Markdown, CSV) and the plan of a dry run."""
