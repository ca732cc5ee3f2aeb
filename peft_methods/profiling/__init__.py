"""What a run costs: time, memory, energy, FLOPs and latency."""
