"""The reward models: the catalogue of those known by name, and a file for each family."""
