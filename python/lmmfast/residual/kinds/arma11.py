"""ARMA(1,1): an autoregression whose first correlation is free, over visits."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.residual.kind import AT_END, Natural, Setting, TableKind, artanh, is_one
from lmmfast.residual.kinds.toeplitz import MAX_START_CORRELATION, mean_by_lag
from lmmfast.residual.signatures import written
from lmmfast.residual.structure import (
    Correlation,
    ResidualStructure,
    Source,
    Values,
    own_variance,
)


def arma11(psi: Values, T: int) -> Values:
    """Correlation gamma rho^(k-1) at lag k; rho and gamma as `correlations` has them."""
    rho, gamma = correlations(psi)
    lags = np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
    return np.where(lags == 0, 1.0, gamma * rho ** np.maximum(lags - 1, 0))


def correlations(psi: Values) -> tuple[Values, Values]:
    """Rho = tanh(psi_1) and gamma = (rho + tanh(psi_2)) / 2, from -(1 - rho)/2 to (1 + rho)/2.

    These are the correlations of x_t = rho x_(t-1) + e_t + theta e_(t-1) with -1 < theta < 1, for
    which gamma = (1 + rho theta) (rho + theta) / (1 + 2 rho theta + theta^2).
    """
    rho = np.tanh(psi[0])
    return rho, (rho + np.tanh(psi[1])) / 2


class ARMA11Kind(TableKind):
    """Parametrised by inverse hyperbolic tangents of rho and of 2 gamma - rho."""

    name = "arma11"
    definition = staticmethod(arma11)

    def n_psi(self, T: int, bands: int | None) -> int:  # noqa: D102
        return 2

    def natural(self, psi: Values, setting: Setting) -> list[Values]:  # noqa: D102
        return list(correlations(psi))

    def names(self, setting: Setting) -> list[Natural]:  # noqa: D102
        text = setting.of(setting.columns)
        return [Natural(f"{name}({text})", "correlation") for name in ("rho", "gamma")]

    def psi(self, natural: Array, setting: Setting, margin: float) -> Array:  # noqa: D102
        rho, gamma = natural
        if abs(2 * gamma - rho) > 1 + AT_END:
            text = setting.of(setting.columns)
            raise DataError(
                f"start has gamma({text}) = {gamma:g}: beside rho({text}) = {rho:g} it must be "
                f"from {(rho - 1) / 2:g} to {(rho + 1) / 2:g}"
            )
        return artanh(np.array([rho, 2 * gamma - rho]), margin)

    def at_end(self, psi: Array, setting: Setting) -> str | None:  # noqa: D102
        if is_one(psi[:1]):
            return f"the correlation rho over {setting.where} is 1 or -1"
        if is_one(psi[1:]):
            return f"the moving average over {setting.where} is at the end of its range, 1 or -1"
        return None

    def starts(self, E: Array, bands: int | None) -> list[Array]:  # noqa: D102
        first, second, *_ = [*mean_by_lag(E), 0.0, 0.0]
        # By the first two lags; an autoregression; one that forgets slowly, with measurement error.
        ratio = second / first if abs(first) > 0.05 else 0.0
        starts = [np.array([rho, 2 * first - rho]) for rho in (ratio, first, 0.8)]
        most = np.arctanh(MAX_START_CORRELATION)
        return [np.clip(artanh(start, 0.01), -most, most) for start in starts]


class ARMA11(ResidualStructure):
    """ARMA(1,1): correlation gamma rho^(lag - 1) (SAS TYPE=ARMA(1,1), nlme's corARMA(p=1, q=1)).

    gamma = rho is `AR1`; gamma below rho > 0 is an `AR1` with measurement error. gamma goes from
    -(1 - rho)/2 to (1 + rho)/2, where the moving average of the process ends.

    Parameters
    ----------
    col : str or array (n,)
        Visit: whole numbers, or levels in their order. Visits that are missing keep their place.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).

    References
    ----------
    Brockwell, P. J. and Davis, R. A. (1991). Time Series: Theory and Methods, example 3.3.5.
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("arma11", "positions", (col,), by),
            own_variance(by),
            written("ARMA11", [col], by=by),
        )
