"""BraTS-MEN."""
