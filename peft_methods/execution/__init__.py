"""Execution of training runs: `local` runs each one in a fresh process on this machine."""
