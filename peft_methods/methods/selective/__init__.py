"""Methods that train some of the model's own weights."""
