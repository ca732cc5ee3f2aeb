"""Greedy decoding with a cache whose rows are refilled: what generates the texts of test rows."""
