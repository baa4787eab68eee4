"""The engine for AR(1) and Ornstein-Uhlenbeck residuals: a recursion along the rows, O(n_i)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.covariance.random import Ints
from lmmfast.engines.residual_base import ResidualEngineBase
from lmmfast.engines.totals import Totals, add_local
from lmmfast.residual.layout import Stratum
from lmmfast.residual.model import ResidualModel

#: What the kernels are given of the model, after the rows: kappa, name and parameter of the
#: correlation, nugget fraction.
MarkovArguments = tuple[Array, str, float, float | None]
#: Rows of a stratum: Z, ptr, lags, roots of weights, G.
MarkovRows = tuple[Array, Ints, Array, Array | None, Array | None]

#: From this many rows in the longest cluster on the Markov engine is faster.
MARKOV_ROWS = 64


class MarkovEngine(ResidualEngineBase):
    """Whiten AR(1) and Ornstein-Uhlenbeck residuals by recursion: O(n_i) a cluster.

    Parameters
    ----------
    A, Z, weights, model, n_threads
        As in `lmmfast.engines.dense.DenseEngine`; rows of a cluster sorted by time.
    """

    name = "markov"

    @cached_property
    def _parts(self) -> list[tuple[Stratum, Ints, tuple[Any, Array, MarkovRows]]]:
        """For each stratum its clusters, and its rows: which, A, and what kernels want beside."""
        model = self.model
        coords, sizes = model.coords, np.diff(model.ptr)
        assert coords is not None
        lag = np.zeros(len(coords))
        lag[1:] = np.diff(coords[:, 0])
        lag[model.ptr[:-1]] = 0.0
        parts = []
        for k, stratum in enumerate(model.parameters.strata):
            clusters = np.flatnonzero(model.stratum == k)
            rows: Any = slice(None)
            if len(model.parameters.strata) > 1:
                rows = np.flatnonzero(np.repeat(model.stratum == k, sizes))
            ptr = np.append(0, np.cumsum(sizes[clusters])).astype(np.int64)

            def take(values: Array, rows: Any = rows) -> Array:
                return np.ascontiguousarray(values[rows])

            def take_any(values: Array | None, take: Any = take) -> Array | None:
                return None if values is None else take(values)

            data = (
                take(self.Z),
                ptr,
                take(lag),
                take_any(self.inverse_root_weights),
                take_any(model.G),
            )
            parts.append((stratum, clusters, (rows, take(self.A), data)))
        return parts

    def _arguments(self, stratum: Stratum) -> MarkovArguments:
        correlation = self.model.parameters.correlation
        assert correlation is not None
        psi = float(self.kappa[stratum.psi][0])
        return self._variance_kappa(), correlation.kind, psi, self._nu(stratum)

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda'."""
        totals = self._zero(with_kr)
        Lambda = np.ascontiguousarray(Lambda)
        for stratum, _, (_, A, data) in self._parts:
            flat, failed = core.markov_totals(
                A, *data, *self._arguments(stratum), Lambda, with_kr, self.n_threads
            )
            if failed >= 0:
                return self._failed()
            add_local(totals, flat, self._local(stratum))
        return totals

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> Array:
        """Predictions root Lambda'Z'V^-1 r (m, q) for r = A c."""
        out = np.empty((self.model.m, self.Z.shape[1]))
        Lambda, root = np.ascontiguousarray(Lambda), np.ascontiguousarray(root)
        for stratum, clusters, (_, A, data) in self._parts:
            out[clusters] = core.markov_effects(
                A, *data, *self._arguments(stratum), Lambda, root, c, self.n_threads
            )
        return out

    def random_effects_cov(self, Lambda: Array, root: Array) -> Array:
        """Var(root u | y) / sigma2 = root (I - Lambda'Z'V^-1 Z Lambda) root', (m, q, q)."""
        q = self.Z.shape[1]
        out = np.empty((self.model.m, q, q))
        Lambda, root = np.ascontiguousarray(Lambda), np.ascontiguousarray(root)
        for stratum, clusters, (_, A, data) in self._parts:
            out[clusters] = core.markov_effects_cov(
                A, *data, *self._arguments(stratum), Lambda, root, self.n_threads
            )
        return out

    def whitened(self, Lambda: Array, c: Array) -> Array:
        """L^-1 A c (n,) with Vdot_i = L L', rows in the order of the model."""
        out = np.empty(len(self.A))
        Lambda = np.ascontiguousarray(Lambda)
        for stratum, _, (rows, A, data) in self._parts:
            out[rows] = core.markov_whitened(
                A, *data, *self._arguments(stratum), Lambda, c, self.n_threads
            )
        return out


def suits_markov(model: ResidualModel) -> bool | None:
    """Whether the Markov engine is the faster one; None: it does not know the structure."""
    correlation = model.parameters.correlation
    if correlation is None or correlation.kind not in ("ar1", "exponential"):
        return None
    if model.coords is None or model.coords.shape[1] > 1:
        return None
    return int(np.diff(model.ptr).max()) >= MARKOV_ROWS
