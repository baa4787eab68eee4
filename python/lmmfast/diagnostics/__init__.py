"""Residuals of all kinds, influence of groups and rows, and how much a model explains."""
