"""Metrics: arrays and tensors in, floats out."""
