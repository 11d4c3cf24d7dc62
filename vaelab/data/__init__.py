"""From files to batches: index, split, transforms, cache, phantoms."""
