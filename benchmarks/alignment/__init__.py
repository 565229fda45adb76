"""Named benchmarks of alignment: a vision-language model answers questions about each image."""
