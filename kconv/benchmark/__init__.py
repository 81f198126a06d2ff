"""Measures kconv against stock TensorFlow: `kconv bench`."""
