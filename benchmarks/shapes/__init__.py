"""A small world of coloured shapes in which prompts, pictures and the truth are all known."""
