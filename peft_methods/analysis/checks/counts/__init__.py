"""Which numbers of trainable parameters libraries really build, by model, head and method."""
