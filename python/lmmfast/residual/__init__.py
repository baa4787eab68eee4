"""Covariance structures of the residuals: what users write, and what it means for their data."""
