"""Engines run the training steps: `stock` is Hugging Face's Trainer."""
