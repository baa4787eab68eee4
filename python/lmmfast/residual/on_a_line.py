"""Processes in one dimension with correlation exp(-d / l) or rho^d, given their noisy values: O(n).

Such a process is Markov: a filter and a smoother go over the rows, and between two times it depends
on its values there alone. Durbin and Koopman, Time Series Analysis by State Space Methods (2012),
chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.residual.layout import ResidualParameters, Stratum

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Decay:
    """Correlation of a process by the distance of two times, with parameters for each cluster.

    Attributes
    ----------
    is_ar1 : bool
        rho^d for whole numbers d; else exp(-d / l).
    rate : ndarray (m,)
        rho, or 1 / l, of each cluster.
    """

    is_ar1: bool
    rate: Array

    @classmethod
    def of(
        cls, parameters: ResidualParameters, kappa: Array, stratum: NDArray[np.intp]
    ) -> Decay | None:
        """Return the decay of m clusters by their strata; None for other structures."""
        correlation = parameters.correlation
        if correlation is None or correlation.kind not in ("ar1", "exponential"):
            return None
        if len(correlation.columns) > 1:
            return None

        def rate(one: Stratum) -> float:
            psi = kappa[one.psi][0]
            return float(np.tanh(psi) if correlation.kind == "ar1" else np.exp(-psi))

        rates = np.array([rate(one) for one in parameters.strata])
        return cls(correlation.kind == "ar1", rates[stratum])

    def at(self, d: Array, cluster: Index) -> tuple[Array, Array]:
        """Correlations phi at distances d (k,), and 1 - phi^2."""
        rate = self.rate[cluster]
        if self.is_ar1:
            phi = rate ** d.astype(np.int64)
            return phi, 1.0 - phi * phi
        return np.exp(-d * rate), -np.expm1(-2.0 * d * rate)


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Expected values of processes of unit variance at the k rows of their clusters.

    Attributes
    ----------
    decay : Decay
    cluster : ndarray of int (k,)
        Ascending.
    time : ndarray (k,)
        Ascending within clusters.
    value : ndarray (k,)
    """

    decay: Decay
    cluster: Index
    time: Array
    value: Array

    def at(self, cluster: Index, time: Array) -> Array:
        """Expected values (N,) at other times of these clusters."""
        k, N = len(self.time), len(time)
        of_query = np.append(np.zeros(k, dtype=bool), np.ones(N, dtype=bool))
        times, clusters = np.append(self.time, time), np.append(self.cluster, cluster)
        order = np.lexsort((of_query, times, clusters))
        knots_before = np.empty(k + N, dtype=np.intp)
        knots_before[order] = np.cumsum(~of_query[order])
        before = knots_before[k:] - 1  # the knot at or before each time
        left, has_left = self._beside(before, cluster)
        right, has_right = self._beside(before + 1, cluster)
        phi_l, rest_l = self.decay.at(np.abs(time - self.time[left]), cluster)
        phi_r, rest_r = self.decay.at(np.abs(self.time[right] - time), cluster)
        phi_l[~has_left], rest_l[~has_left] = 0.0, 1.0
        phi_r[~has_right], rest_r[~has_right] = 0.0, 1.0
        between = rest_l + phi_l * phi_l * rest_r  # 1 - (phi_l phi_r)^2, without cancellation
        tied = between <= 0  # at both times, to rounding
        out = np.where(tied, 1.0, _ratio(phi_l * rest_r, between)) * self.value[left]
        out += _ratio(phi_r * rest_l, between) * self.value[right]
        return np.asarray(out)

    def _beside(self, knot: Index, cluster: Index) -> tuple[Index, NDArray[np.bool_]]:
        """Knots, and whether they are there and of the clusters wanted."""
        inside = np.clip(knot, 0, len(self.time) - 1)
        return inside, (inside == knot) & (self.cluster[inside] == cluster)


def smooth(decay: Decay, nu: Array, ptr: NDArray[np.int64], time: Array, e: Array) -> Smoothed:
    """Expected values of processes given the sums e (n,) of them and of white noise.

    A filter forwards and a smoother backwards; the j-th rows of all clusters go together.

    Parameters
    ----------
    decay : Decay
    nu : ndarray (m,)
        The part of the variance, one, that is noise in each cluster.
    ptr : ndarray (m + 1,)
        Where each cluster begins.
    time : ndarray (n,)
        Ascending within clusters; several rows may have the same if there is noise.
    e : ndarray (n,)
    """
    sizes = np.diff(ptr)
    largest_first = np.argsort(-sizes, kind="stable")
    ends = np.searchsorted(-sizes[largest_first], -np.arange(sizes.max(initial=0)))
    value, var, expected_var = np.empty_like(e), np.empty_like(e), np.empty_like(e)
    phi = np.zeros_like(e)  # correlation with the row before
    a, P = np.zeros(len(sizes)), 1.0 - nu[largest_first]
    for j, active in enumerate(ends):
        own = largest_first[:active]
        at = ptr[own] + j
        if j:
            phi[at], rest = decay.at(time[at] - time[at - 1], own)
            a = phi[at] * value[at - 1]
            P = phi[at] ** 2 * var[at - 1] + rest * (1.0 - nu[own])
        gain = _ratio(P, P + nu[own])
        value[at], var[at], expected_var[at] = a + gain * (e[at] - a), (1.0 - gain) * P, P
    for j in range(len(ends) - 1, 0, -1):
        at = ptr[largest_first[: ends[j]]] + j
        back = _ratio(phi[at] * var[at - 1], expected_var[at])
        value[at - 1] += back * (value[at] - phi[at] * value[at - 1])
    return Smoothed(decay, np.repeat(np.arange(len(sizes)), sizes), time, value)


def _ratio(part: Array, whole: Array) -> Array:
    """Quotients; zero where nothing is divided by nothing."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
