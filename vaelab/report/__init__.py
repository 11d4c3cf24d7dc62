"""Pictures; arrays in, figures out."""
