"""What is predicted: new rows, or those of the fit, with all that their errors depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.prediction.derivatives import ThetaParameters, variance_parts
from lmmfast.prediction.mse import Variances
from lmmfast.residual.place import Places

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Targets:
    """N rows whose signal, or a new observation, is predicted.

    Attributes
    ----------
    x : ndarray (N, p)
        Columns of X that the fit kept.
    z : ndarray (N, q)
    levels : list of ndarray of int (N,)
        By grouping factor of the fit, the level among its effects; -1: none that is known.
    signal : list of int
        Factors whose effects are part of the signal.
    residual : {"process", "errors", "none"}
        What of the residuals is part of the signal.
    places : Places or None
        In the residual structure; None without one.
    sds : ndarray (N,)
        Standard deviations of the residuals.
    observation : bool
        Whether it is a new observation that is predicted.
    """

    x: Array
    z: Array
    levels: list[Index]
    signal: list[int]
    residual: str
    places: Places | None
    sds: Array
    observation: bool

    def in_signal(self, theta: ThetaParameters) -> bool:
        """Whether the signal has residuals in it that those of other rows are correlated with."""
        nugget = theta.residual is not None and theta.residual.has_nugget
        return self.residual == "errors" or (self.residual == "process" and nugget)

    def has_more(self, theta: ThetaParameters) -> bool:
        """Whether targets have residuals that are correlated with those of rows, signals none."""
        correlated = theta.residual is not None and theta.residual.correlation is not None
        return correlated and self.observation and not self.in_signal(theta)

    def take(self, rows: Index) -> Targets:
        """Return some of the rows."""
        return Targets(
            self.x[rows],
            self.z[rows],
            [level[rows] for level in self.levels],
            self.signal,
            self.residual,
            None if self.places is None else self.places.take(rows),
            self.sds[rows],
            self.observation,
        )


def columns_at(columns: list[Array], some: NDArray[np.intp]) -> Array:
    """Some rows of columns, (k, number of columns)."""
    return np.column_stack([c[some] for c in columns]) if columns else np.empty((len(some), 0))


def factor_columns(fit: LMMResult) -> list[Index]:
    """Columns of Z that are the effects of each grouping factor."""
    columns: Any = getattr(fit, "_columns", (np.arange(len(fit.z_names)),))
    return [np.asarray(one, dtype=np.intp) for one in columns]


def target_variances(fit: LMMResult, targets: Targets, theta: ThetaParameters) -> Variances:
    """Variances of signals and targets beside X beta, as if nothing were known of their groups."""
    N = len(targets.x)
    effects, d_effects = np.zeros((2, N)), np.zeros((2, theta.n, N))
    for factor, columns in enumerate(factor_columns(fit)):
        z, own = targets.z[:, columns], np.ix_(columns, columns)
        value = np.einsum("Na,ab,Nb->N", z, theta.D[own], z)
        d = np.zeros((theta.n, N))
        d[: len(theta.E)] = np.einsum("Na,kab,Nb->kN", z, theta.E[:, own[0], own[1]], z)
        for kind in (0, 1) if factor in targets.signal else (1,):
            effects[kind] += value
            d_effects[kind] += d
    total, process, d_total, d_process = variance_parts(theta, targets.places, targets.sds)
    signal, d_signal = effects[0], d_effects[0]
    if targets.residual == "process":
        signal, d_signal = signal + process, d_signal + d_process
    if targets.residual == "errors":
        signal, d_signal = signal + total, d_signal + d_total
    if not targets.observation:
        return Variances(signal, signal, d_signal, d_signal)
    return Variances(signal, effects[1] + total, d_signal, d_effects[1] + d_total)
