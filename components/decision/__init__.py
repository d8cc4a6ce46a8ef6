"""Should this be finetuned? Prompting measured on a dev sample, failures told apart, a verdict by explicit rules."""
