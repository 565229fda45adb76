"""The page of a benchmark run: tables, correlations, a gallery of all pictures."""
