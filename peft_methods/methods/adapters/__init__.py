"""Bottleneck adapters and their fusion."""
