"""The paper's ablations, run in the laboratory."""
