"""The cuda_graphs engine: training steps replayed as CUDA graphs."""
