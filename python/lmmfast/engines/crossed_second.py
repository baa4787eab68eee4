"""Second-order sums of crossed factors by products with T = Z'V^-1 Z, which is never formed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.arrays import Array

#: For each factor, its entries k of vech(Ddot) and their columns within the factor.
Pairs = list[list[tuple[int, int, int]]]


def times_derivative(
    v: Array, effects: list[NDArray[np.int64]], pairs: Pairs
) -> tuple[Array, list[int]]:
    """Products of each dD_k with vectors v (N, n): (N, n_used, n), and which k they are of.

    Parameters
    ----------
    effects : list of ndarray (m_f, q_f)
        Positions of the effects of each factor's levels.
    """
    which = [k for own in pairs for k, _, _ in own]
    out = np.zeros((len(v), len(which), v.shape[1]))
    place = 0
    for own, at in zip(pairs, effects, strict=True):
        for _, a, b in own:
            out[at[:, a], place] += v[at[:, b]]
            if a != b:
                out[at[:, b], place] += v[at[:, a]]
            place += 1
    return out, which


def second_order_sums(
    v: Array, effects: list[NDArray[np.int64]], pairs: Pairs, times_T: Callable[[Array], Array]
) -> Array:
    """A'V^-1 dV_k V^-1 dV_l V^-1 A (K, K, p + 1, p + 1): K (p + 1) products with T.

    Parameters
    ----------
    v : ndarray (N, p + 1)
        Z'V^-1 A.
    times_T : callable
        T times vectors (N, n).
    """
    p1, K = v.shape[1], 1 + max(k for own in pairs for k, _, _ in own)
    products, which = times_derivative(v, effects, pairs)
    left = np.ascontiguousarray(products.reshape(len(v), -1))
    kr = np.zeros((K, K, p1, p1))
    for place, other in enumerate(which):
        right = np.ascontiguousarray(times_T(np.ascontiguousarray(products[:, place])))
        kr[which, other] = core.cross_product(left, right).reshape(len(which), p1, p1)
    return kr
