"""The training step, its callbacks, hardware and checkpoints."""
