"""Training side by side with TRL and with plain transformers: `python -m benchmarks.finetuning`."""
