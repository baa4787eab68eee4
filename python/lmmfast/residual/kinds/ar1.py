"""First-order autoregression over visits."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.kind import Kind, Natural, Setting, artanh, is_one
from lmmfast.residual.signatures import written
from lmmfast.residual.structure import (
    Correlation,
    ResidualStructure,
    Source,
    Values,
    level_variances,
    own_variance,
)


def ar1(psi: Values, d: Array) -> Values:
    """rho^d for whole numbers d, rho = tanh(psi)."""
    return np.tanh(psi[0]) ** np.asarray(d, dtype=np.int64)


class AR1Kind(Kind):
    """Parametrised by the inverse hyperbolic tangent of rho, for rho of either sign."""

    name = "ar1"
    definition = staticmethod(ar1)

    def n_psi(self, T: int, bands: int | None) -> int:  # noqa: D102
        return 1

    def natural(self, psi: Values, setting: Setting) -> list[Values]:  # noqa: D102
        return [np.tanh(psi[0])]

    def names(self, setting: Setting) -> list[Natural]:  # noqa: D102
        return [Natural(f"rho({setting.of(setting.columns)})", "correlation")]

    def psi(self, natural: Array, setting: Setting, margin: float) -> Array:  # noqa: D102
        return artanh(natural, margin)

    def at_end(self, psi: Array, setting: Setting) -> str | None:  # noqa: D102
        return f"a correlation over {setting.where} is 1 or -1" if is_one(psi) else None


class AR1(ResidualStructure):
    """First-order autoregression: correlation rho^lag, rho of either sign (SAS TYPE=AR(1)).

    Parameters
    ----------
    col : str or array (n,)
        Visit: whole numbers, or levels in their order. Visits that are missing keep their place.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("ar1", "positions", (col,), by),
            own_variance(by),
            written("AR1", [col], by=by),
        )


class HeterogeneousAR1(ResidualStructure):
    """First-order autoregression with a variance for each visit (SAS TYPE=ARH(1)).

    Parameters
    ----------
    col, by
        As in `AR1`.
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("ar1", "positions", (col,), by),
            level_variances(col, by),
            written("HeterogeneousAR1", [col], by=by),
        )
