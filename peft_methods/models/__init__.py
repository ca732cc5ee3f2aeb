"""Base models: configs, weights, tokenizers, and where their parts are."""
