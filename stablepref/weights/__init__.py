"""Weights between files and tensors: official files, folders, the hub and checksums."""
