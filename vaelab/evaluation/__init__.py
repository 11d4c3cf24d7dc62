"""What judging tasks share: predictions of a run and what is made of them."""
