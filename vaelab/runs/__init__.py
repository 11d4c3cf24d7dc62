"""A run folder on disk: its names, its status, its history, what it holds."""
