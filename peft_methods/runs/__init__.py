"""From the spec of a run to its record."""
