"""What a training step takes, simulated, and the plan that fits the budget."""
