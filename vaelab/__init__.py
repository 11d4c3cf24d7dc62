"""Train and judge variational autoencoders of medical images."""
