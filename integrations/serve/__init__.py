"""Scorers behind HTTP, in the protocols of the trainers of today; `stablepref serve` runs it."""
