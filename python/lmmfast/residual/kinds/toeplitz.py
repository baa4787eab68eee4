"""Toeplitz structures: a correlation for each lag, all lags or the first of them."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.kind import Natural, Setting, TableKind, artanh, is_one
from lmmfast.residual.signatures import written
from lmmfast.residual.structure import (
    Correlation,
    ResidualStructure,
    Source,
    Values,
    level_variances,
    own_variance,
)

#: Correlations of a start stay this far within their range.
MAX_START_CORRELATION = 0.9


def autocorrelations(psi: Values) -> Values:
    """Autocorrelations at lags 1 … K from partial ones tanh(psi): Durbin and Levinson's recursion.

    References
    ----------
    Brockwell, P. J. and Davis, R. A. (1991). Time Series: Theory and Methods, prop. 5.2.1.
    """
    rho: list[Values] = []
    weights: list[Values] = []
    for pacf in np.tanh(psi):
        predicted = sum(w * r for w, r in zip(weights, rho[::-1], strict=True))
        spread = 1 - sum(w * r for w, r in zip(weights, rho, strict=True))
        rho.append(predicted + pacf * spread)
        weights = [w - pacf * v for w, v in zip(weights, weights[::-1], strict=True)] + [pacf]
    return np.array(rho)


def toeplitz(psi: Values, T: int) -> Values:
    """A correlation for each lag; always positive definite."""
    return _by_lag(np.concatenate([[1.0], autocorrelations(psi)]), T)


def banded_toeplitz(psi: Values, T: int) -> Values:
    """Correlations tanh(psi) at the first lags, zero beyond; not always positive definite."""
    by_lag = np.concatenate([[1.0], np.tanh(psi), np.zeros(max(T - 1 - len(psi), 0))])
    return _by_lag(by_lag, T)


def _by_lag(by_lag: Values, T: int) -> Values:
    return by_lag[np.abs(np.subtract.outer(np.arange(T), np.arange(T)))]


def partial_autocorrelations(
    rho: Array, most: float = MAX_START_CORRELATION, least: float = 1e-3
) -> Array:
    """Inverse hyperbolic tangents of the partial autocorrelations of autocorrelations.

    Parameters
    ----------
    rho : ndarray (K,)
        At lags 1 ... K; those of moments need not belong to a covariance matrix.
    most : float
        Largest partial autocorrelation.
    least : float
        Smallest variance of a prediction that is divided by.
    """
    psi: list[float] = []
    weights: list[float] = []
    for k, value in enumerate(rho):
        predicted = float(np.dot(weights, rho[:k][::-1]))
        spread = max(1.0 - float(np.dot(weights, rho[:k])), least)
        pacf = float(np.clip((value - predicted) / spread, -most, most))
        psi.append(float(np.arctanh(pacf)))
        weights = [w - pacf * v for w, v in zip(weights, weights[::-1], strict=True)] + [pacf]
    return np.array(psi)


def _dominated(rho: Array) -> Array:
    """Parameters of a banded matrix with correlations rho, shrunk until the diagonal dominates."""
    return np.arctanh(rho * min(1.0, 0.45 / max(float(np.abs(rho).sum()), 1e-300)))


def mean_by_lag(E: Array) -> Array:
    """Mean correlation (T - 1,) at each lag of a matrix (T, T)."""
    return np.array([np.mean(np.diag(E, k)) for k in range(1, len(E))])


class ToeplitzKind(TableKind):
    """Parametrised by partial autocorrelations."""

    name = "toeplitz"
    definition = staticmethod(toeplitz)

    def n_psi(self, T: int, bands: int | None) -> int:  # noqa: D102
        return T - 1

    def natural(self, psi: Values, setting: Setting) -> list[Values]:  # noqa: D102
        return list(autocorrelations(psi))

    def names(self, setting: Setting) -> list[Natural]:  # noqa: D102
        text = setting.of(setting.columns)
        return [Natural(f"rho{k + 1}({text})", "correlation") for k in range(setting.n_psi)]

    def psi(self, natural: Array, setting: Setting, margin: float) -> Array:  # noqa: D102
        return partial_autocorrelations(natural, 1 - margin, least=1e-15)

    def at_end(self, psi: Array, setting: Setting) -> str | None:  # noqa: D102
        return f"a correlation over {setting.where} is 1 or -1" if is_one(psi) else None

    def starts(self, E: Array, bands: int | None) -> list[Array]:  # noqa: D102
        return [partial_autocorrelations(mean_by_lag(E))]


class BandedToeplitzKind(ToeplitzKind):
    """Parametrised by the correlations themselves (`lmmfast.residual.ranges` keeps their range)."""

    name = "banded_toeplitz"
    definition = staticmethod(banded_toeplitz)

    def n_psi(self, T: int, bands: int | None) -> int:  # noqa: D102
        assert bands is not None
        return bands

    def natural(self, psi: Values, setting: Setting) -> list[Values]:  # noqa: D102
        return list(np.tanh(psi))

    def psi(self, natural: Array, setting: Setting, margin: float) -> Array:  # noqa: D102
        return artanh(natural, margin)

    def at_end(self, psi: Array, setting: Setting) -> str | None:  # noqa: D102
        singular = self.is_singular(psi, setting.T)
        return f"the correlation matrix of {setting.where} is singular" if singular else None

    def starts(self, E: Array, bands: int | None) -> list[Array]:  # noqa: D102
        return [_dominated(mean_by_lag(E)[:bands])]

    def moderate(self, n_psi: int) -> Array:  # noqa: D102
        return _dominated(np.tanh(super().moderate(n_psi)))


class Toeplitz(ResidualStructure):
    """A correlation for each lag between visits (SAS TYPE=TOEP, or TOEP(bands + 1)).

    Parameters
    ----------
    col : str or array (n,)
        Visit: levels in their order. Visits that are missing keep their place.
    bands : int, optional
        Number of lags with a correlation; zero beyond.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, col: Source, *, bands: int | None = None, by: Source | None = None) -> None:
        super().__init__(
            _toeplitz(col, bands, by),
            own_variance(by),
            written("Toeplitz", [col], bands=bands, by=by),
        )


class HeterogeneousToeplitz(ResidualStructure):
    """`Toeplitz` with a variance for each visit (SAS TYPE=TOEPH).

    Parameters
    ----------
    col, bands, by
        As in `Toeplitz`.
    """

    def __init__(self, col: Source, *, bands: int | None = None, by: Source | None = None) -> None:
        super().__init__(
            _toeplitz(col, bands, by),
            level_variances(col, by),
            written("HeterogeneousToeplitz", [col], bands=bands, by=by),
        )


def _toeplitz(col: Source, bands: int | None, by: Source | None) -> Correlation:
    if bands is not None and (not isinstance(bands, int | np.integer) or bands < 1):
        raise ValueError(f"bands={bands!r}: give the number of lags, 1 or more")
    kind = "toeplitz" if bands is None else "banded_toeplitz"
    return Correlation(kind, "levels", (col,), by, bands=None if bands is None else int(bands))
