"""Linear correlation: it falls along a straight line to zero."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import UnsupportedModelError
from lmmfast.residual.kinds.spatial import SpatialStructure
from lmmfast.residual.structure import Source, Values


def linear(psi: Values, d: Array) -> Values:
    """1 - d / l for d < l = exp(psi), else 0."""
    a = d / np.exp(psi[0])
    return np.where(np.real(a) < 1, 1 - a, 0.0)


class SpatialLinear(SpatialStructure):
    """Correlation 1 - d / range up to the range, zero beyond (SAS SP(LIN), nlme's corLin).

    Of one coordinate only: in a plane it is no correlation, some matrices of it have negative
    eigenvalues.

    Parameters
    ----------
    *coords : str or array (n,)
        A coordinate, or a time as a number.
    nugget : bool
        Uncorrelated variance on top.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).

    Notes
    -----
    The likelihood has a kink wherever the range passes a distance between two rows. A maximum at a
    kink, where the score jumps from positive to negative, has no standard errors: the search says
    that it did not converge.

    References
    ----------
    Pinheiro, J. C. and Bates, D. M. (2000). Mixed-Effects Models in S and S-PLUS, table 5.2;
    Chiles, J.-P. and Delfiner, P. (2012). Geostatistics, section 2.5.1, on its dimensions.
    """

    _kind = "linear"

    def __init__(self, *coords: Source, nugget: bool = False, by: Source | None = None) -> None:
        if not coords:
            raise ValueError("SpatialLinear needs a coordinate")
        if len(coords) > 1:
            raise UnsupportedModelError(
                f"SpatialLinear takes one coordinate, not {len(coords)}: in a plane 1 - d / range "
                "is no correlation; choose SpatialSpherical, which is zero beyond its range too"
            )
        super().__init__(*coords, nugget=nugget, by=by)
