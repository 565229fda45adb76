"""What a process runs under: number types, inference mode, signals, checked fields."""
