"""The world of shapes: scenes, their words, how they are drawn and what can be wrong."""
