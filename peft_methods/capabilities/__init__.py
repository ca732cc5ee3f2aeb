"""What trains what: each method on each family of models, measured on tiny models."""
