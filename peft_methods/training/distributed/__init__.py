"""One run over several GPUs: each rank trains on a share of every batch."""
