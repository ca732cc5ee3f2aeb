"""Tasks: one file each for its labels, loss, metrics and trivial baseline."""
