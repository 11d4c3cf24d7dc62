"""How fast and how large: timing of data, steps and epochs."""
