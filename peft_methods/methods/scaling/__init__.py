"""Learned vectors that rescale activations."""
