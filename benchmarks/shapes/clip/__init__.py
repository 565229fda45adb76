"""The laboratory's own CLIP: model, batches, training."""
