"""Recipes: what is compared. One TOML file names model, data, task, budget and methods."""
