"""The negative ELBO and the schedules of beta."""
