"""The metric `label_accuracy`."""
