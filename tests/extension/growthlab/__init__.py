"""A package that vaelab knows nothing of: experiments as their authors bring them."""
