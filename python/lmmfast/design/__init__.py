"""Columns of a model, y, X, Z and the grouping factors, from a formula or from arrays."""
