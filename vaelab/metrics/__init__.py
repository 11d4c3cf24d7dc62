"""Numbers to judge by; arrays and tensors in, floats out."""
