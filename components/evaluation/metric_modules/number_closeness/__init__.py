"""The metric `number_closeness`."""
