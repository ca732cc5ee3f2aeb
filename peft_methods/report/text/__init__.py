"""Comparisons as text: terminal, Markdown and CSV."""
