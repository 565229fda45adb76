"""The oracle: what a picture shows, read from its pixels, and whether it is right."""
