"""Engines that train a run within a budget, and what they share."""
