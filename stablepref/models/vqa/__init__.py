"""VQAScore: the probability that a vision-language model gives the right answer about an image."""
