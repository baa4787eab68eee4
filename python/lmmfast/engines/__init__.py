"""Totals of likelihood, score and information over clusters, by the kind of model."""
