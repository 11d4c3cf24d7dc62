"""Volumes of several series: indexed, checked, preprocessed, written back in their own space."""
