"""Isolation of runs: a process that does several leaves no trace of one in the next."""
