"""The registry beside MLflow's: `python -m benchmarks.registry`."""
