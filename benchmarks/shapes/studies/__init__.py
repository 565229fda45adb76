"""Studies of selection, guidance and fine-tuning with the laboratory's pipeline."""
