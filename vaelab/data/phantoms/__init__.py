"""Data made by a generator, for those who have none."""
