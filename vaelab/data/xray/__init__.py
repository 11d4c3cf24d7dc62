"""X-ray images: index, leaks, decoding, loaders."""
