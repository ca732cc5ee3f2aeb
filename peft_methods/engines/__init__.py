"""Engines run the training steps: `stock` is Hugging Face's Trainer, `graphed` the same with steps that are CUDA graphs."""
