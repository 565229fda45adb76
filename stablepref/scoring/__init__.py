"""Scoring at the user's edge: prompts, batches that fit, streams, choices and manifests."""
