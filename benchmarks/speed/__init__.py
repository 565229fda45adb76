"""How fast scoring and training are, beside other packages."""
