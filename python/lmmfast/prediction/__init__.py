"""Predictions of the random effects and of rows, old and new."""
