"""Methods that rotate frozen weights by trained orthogonal matrices."""
