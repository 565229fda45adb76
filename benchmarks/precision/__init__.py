"""What reduced precision and other preprocessing do to scores."""
