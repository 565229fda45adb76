"""The laboratory's text-to-image pipeline: parts, training, sampling, grading."""
