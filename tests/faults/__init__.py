"""Real faults, and that they cost nothing that was finished: `pytest tests/faults -m faults` counts both."""
