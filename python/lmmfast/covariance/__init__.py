"""The covariance matrix D of the random effects, its structures and parameters."""
