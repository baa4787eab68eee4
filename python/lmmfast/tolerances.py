"""Tolerances that engines and the search share."""

from __future__ import annotations

# The Newton decrement is twice the log-likelihood still to be gained; its root is the distance to
# the optimum in standard errors.
DECREMENT_TOLERANCE = 1e-15
