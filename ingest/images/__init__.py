"""From the bytes of a file to a verdict and pixels."""
