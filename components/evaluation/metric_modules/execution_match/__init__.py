"""The metric `execution_match`, in the form that the evaluate library loads."""
