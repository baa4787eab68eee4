"""Rational quadratic correlation: it falls slowly, with the square of the distance."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.kinds.spatial import SpatialStructure
from lmmfast.residual.structure import Values


def rational_quadratic(psi: Values, d: Array) -> Values:
    """1 / (1 + (d / l)^2), l = exp(psi)."""
    return 1 / (1 + (d / np.exp(psi[0])) ** 2)


class SpatialRationalQuadratic(SpatialStructure):
    """Correlation 1 / (1 + (d / range)^2) of the distance d (nlme's corRatio).

    Parameters
    ----------
    *coords, nugget, by
        As in `SpatialExponential`.

    References
    ----------
    Pinheiro, J. C. and Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS, table 5.2.
    """

    _kind = "rational_quadratic"
