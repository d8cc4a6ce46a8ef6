"""Methods, order, loss, checkpoints and the trainer."""
