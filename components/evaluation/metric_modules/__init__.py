"""Metrics as `evaluate` modules, one folder each; components/evaluation/metrics.py loads them by name."""
