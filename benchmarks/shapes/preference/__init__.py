"""The bundled preference model: its training and its card."""
