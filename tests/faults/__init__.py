"""The fault suite: faults strike real sessions, and no finished result may be lost.

Run all of it with `pytest tests/faults -m faults`.
"""
