"""The commands of the benchmarks and of the demonstration."""
