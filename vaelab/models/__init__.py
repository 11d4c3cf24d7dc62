"""Variational autoencoders; they know no loss."""
