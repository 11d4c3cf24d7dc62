"""What the VAE cannot explain: scores, maps, the detector."""
