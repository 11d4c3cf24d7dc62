"""Latents as a table and a dataset; probes, spaces of several runs, pictures of them."""
