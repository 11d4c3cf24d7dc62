"""Figures, Markdown and pages: arrays and plain values in, nothing read from files."""
