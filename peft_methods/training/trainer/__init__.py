"""The trainer engine: the training loop of Hugging Face's Trainer."""
