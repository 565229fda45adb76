"""A local page on which people choose between pictures; `stablepref label` serves it."""
