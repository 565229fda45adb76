"""What the trainer's loop is made of: steps, pairs, the loader, checkpoints and the log."""
