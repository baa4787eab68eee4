"""Fits as files: a stored zip of JSON and NumPy's arrays, read without running anything in it."""
