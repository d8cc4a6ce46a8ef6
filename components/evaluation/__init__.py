"""What a model can do: the task by its metric, general suites, intervals, the alignment tax, the report."""
