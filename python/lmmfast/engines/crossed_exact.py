"""Expected information and ``kr`` of crossed factors with few effects, by dense algebra."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array, vech_pairs


def expected_information(
    T: Array, columns: tuple[NDArray[np.intp], ...], effects: list[NDArray[np.int64]], v: Array
) -> tuple[Array, Array]:
    """Expected information (K, K) and kr (K, K, p + 1, p + 1).

    Parameters
    ----------
    T : ndarray (N, N)
        Z'V^-1 Z.
    columns, effects : per factor
        Columns of Z, and positions (m_f, q_f) of the effects of their levels.
    v : ndarray (N, p + 1)
        Z'V^-1 A.
    """
    row, column = vech_pairs(sum(len(own) for own in columns))
    K, p1 = len(row), v.shape[1]
    info, kr = np.zeros((K, K)), np.zeros((K, K, p1, p1))
    owned = [
        [k for k in range(K) if row[k] in own and column[k] in own]
        for own in map(set, (c.tolist() for c in columns))
    ]
    for f, at_f in enumerate(effects):
        v_f = v[at_f]
        for g, at_g in enumerate(effects):
            # Levels of f and g by their columns: T (q_f, q_g, m_f, m_g).
            blocks = T[at_f.T[:, None, :, None], at_g.T[None, :, None, :]]
            squares = np.einsum("abij,cdij->abcd", blocks, blocks)
            v_g = v[at_g]
            ends = np.einsum("iax,bcij,jdy->abcdxy", v_f, blocks, v_g, optimize=True)
            for k in owned[f]:
                for other in owned[g]:
                    for a, b in _places(columns[f], row[k], column[k]):
                        for c, d in _places(columns[g], row[other], column[other]):
                            info[k, other] += 0.5 * squares[a, c, b, d]
                            kr[k, other] += ends[a, b, c, d]
    return info, kr


def _places(own: NDArray[np.intp], row: int, column: int) -> list[tuple[int, int]]:
    """Entries of dD_k (q_f, q_f) that are one."""
    a, b = own.tolist().index(row), own.tolist().index(column)
    return [(a, b)] if a == b else [(a, b), (b, a)]


def all_of_T(
    system: Any,
    columns: tuple[NDArray[np.intp], ...],
    effects: list[NDArray[np.int64]],
    Lambda: Array,
) -> Array:
    """Z'V^-1 Z (N, N) of all effects."""
    G = system.times_G(np.eye(system.n_effects))
    spread = np.zeros_like(G)
    for own, at in zip(columns, effects, strict=True):
        root = Lambda[np.ix_(own, own)]
        for a in range(len(own)):
            for b in range(len(own)):
                spread[at[:, a], at[:, b]] = root[a, b]
    scaled = G @ spread
    M = np.eye(len(G)) + spread.T @ scaled
    return np.asarray(G - scaled @ np.linalg.solve(M, scaled.T))
