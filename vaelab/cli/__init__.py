"""All that knows Hydra: from the command line to a task, and back to an exit status."""
