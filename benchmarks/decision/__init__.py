"""Scenarios with known right answers: does the decision reach them? Run with `python -m benchmarks.decision`."""
