"""Objectives, the negative ELBO first, and the schedules of beta."""
