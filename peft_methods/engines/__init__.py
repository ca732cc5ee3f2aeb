"""The engines that run training steps: `stock` (Hugging Face's Trainer) and `graphed`.

`graphed` is the same Trainer, but its training steps are replayed CUDA graphs.
"""
