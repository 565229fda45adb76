"""What several test modules use: tiny models, small cases, and child processes."""
