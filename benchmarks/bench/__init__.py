"""Benchmarks of text-to-image models: images of prompt sets, scores, and what can be concluded."""
