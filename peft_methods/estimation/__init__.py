"""What a run will cost, before it runs: memory, time and whether it fits."""
