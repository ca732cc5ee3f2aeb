"""Memory of a run, from its own program run on tensors without data."""
