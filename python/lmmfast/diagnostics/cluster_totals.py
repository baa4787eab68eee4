"""The part of each group in the totals of a fit (docs/algorithm.md, section 2), chunk by chunk.

Groups are those of the outermost grouping factor, which are independent of each other. As in
lmmfast/inference/totals.py columns are in coordinates in which X'V^-1 X is the identity, with the
residual r = y - X beta in place of y, and derivatives are by the working parameters of V, in units
of sigma2: vech(D) in the working basis, then kappa of a residual structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array, vech_pairs
from lmmfast.diagnostics.blocks import (
    Blocks,
    V_inverse,
    blocks,
    random_derivatives,
)
from lmmfast.diagnostics.inverse_rows import design_rows, group_chunks
from lmmfast.diagnostics.residual_blocks import residual_derivatives
from lmmfast.diagnostics.small_matrices import group_products, inverse_and_determinant
from lmmfast.errors import UnsupportedModelError
from lmmfast.search.objective import Evaluation

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Numbers of totals, and rows, that are in memory at a time.
MAX_NUMBERS = 1 << 22
MAX_ROWS = 1 << 16


@dataclass(frozen=True, eq=False)
class GroupTotals:
    """Totals of b groups, with K parameters and p + 1 columns [X r]; or of all of them, b = 1.

    Attributes
    ----------
    group : ndarray of int (b,)
        Which groups, as they are stored.
    n : ndarray of int (b,)
        Their rows.
    gram : ndarray (b, p + 1, p + 1)
    trace : ndarray (b, K)
    quad : ndarray (b, K, p + 1, p + 1)
    info : ndarray (b, K, K)
    kr_with : callable
        tr(S kr_kl) (b, K, K) of the columns of X, by S (b, p, p).
    """

    group: NDArray[np.intp]
    n: NDArray[np.int64]
    gram: Array
    trace: Array
    quad: Array
    info: Array
    kr_with: Callable[[Array], Array]


def whole_totals(fit: LMMResult, evaluation: Evaluation) -> GroupTotals:
    """Totals of all groups together, from those of the engine."""
    totals, p = evaluation.totals, len(evaluation.S_inv_root)
    assert totals.kr is not None
    T = np.zeros((p + 1, p + 1))
    T[:p, :p] = evaluation.S_inv_root
    T[:, p] = evaluation.c / np.sqrt(evaluation.sigma2)
    kr = evaluation._kept(totals.kr)[..., :p, :p]
    return GroupTotals(
        group=np.zeros(1, dtype=np.intp),
        n=np.array([fit.nobs]),
        gram=(T.T @ evaluation._kept(totals.gram) @ T)[None],
        trace=totals.trace[None],
        quad=(T.T @ evaluation._quad @ T)[None],
        info=totals.info[None],
        kr_with=partial(_trace_of_one, T[:p, :p].T @ kr @ T[:p, :p]),
    )


def _trace_of_one(kr: Array, S: Array) -> Array:
    """tr(S kr_kl), (b, K, K), of the same kr (K, K, p, p) for all S (b, p, p)."""
    K, b = len(kr), len(S)
    return np.asarray((S.reshape(b, -1) @ kr.reshape(K * K, -1).T).reshape(b, K, K))


def group_totals(fit: LMMResult, root: Array, derivatives: bool = True) -> Iterator[GroupTotals]:
    """Go over the groups.

    Parameters
    ----------
    root : ndarray (p, p)
        G, with G G' the covariance matrix of beta.
    derivatives : bool
        Whether sums by the parameters of V are wanted; else they are of no parameters, K = 0.

    Raises
    ------
    DataError
        A fit that holds no data.
    UnsupportedModelError
        Crossed factors.
    TooLargeError
        Groups of several factors, or with a residual structure, of more rows than V is formed of.
    """
    fit._check_data()
    if fit._residual_model is None and len(fit._grouping) == 1:
        return _of_groups(fit, root, derivatives)
    return _of_blocks(fit, root, derivatives)


def outermost(fit: LMMResult) -> int:
    """The grouping factor in which all others are nested.

    Raises
    ------
    UnsupportedModelError
        There is none.
    """
    if len(fit._grouping) == 1:
        return 0
    clusters: Any = fit._need(fit._clusters, "influence")
    first = int(np.argmin(clusters.counts))
    if any((k, first) not in clusters.parents for k in range(len(clusters.names)) if k != first):
        names = ", ".join(map(repr, clusters.names))
        raise UnsupportedModelError(
            f"the grouping factors {names} are crossed, so that no groups are independent: choose "
            "by='row', or one of them"
        )
    return first


def _of_groups(fit: LMMResult, root: Array, derivatives: bool) -> Iterator[GroupTotals]:
    design, first = fit._need(fit._design, "influence"), 0
    Lambda = fit._Lambda
    row, column = vech_pairs(len(Lambda) if derivatives else 0)
    p1, K = len(root) + 1, len(row)
    clusters = fit._need(fit._clusters, "influence")
    most_groups = max(1, MAX_NUMBERS // ((K + 1) * (K + p1 * p1)))
    average = max(1, fit.nobs // clusters.m)
    for ptr, rows in group_chunks(fit, min(MAX_ROWS, most_groups * average)):
        batch = design.batch(rows).as_float()
        X, r = design_rows(fit, batch, root)
        w = np.ones(len(r)) if batch.weights is None else batch.weights / fit._basis.weight_scale
        Z = (np.column_stack(batch.Z) @ fit._basis.z_map() * np.sqrt(w)[:, None]).T
        A = np.vstack([X.T, r]) * np.sqrt(w / fit._unit)
        gram, G, H = _with_inverse(np.ascontiguousarray(Z), A, ptr, Lambda)
        trace, quad, info = _products(G, H, row, column)
        yield GroupTotals(
            group=first + np.arange(len(ptr) - 1),
            n=np.diff(ptr),
            gram=gram,
            trace=trace,
            quad=quad,
            info=info,
            kr_with=partial(_kr_of_groups, G, H[:, :, :-1], row, column),
        )
        first += len(ptr) - 1


def _with_inverse(
    Z: Array, A: Array, ptr: NDArray[np.int64], Lambda: Array
) -> tuple[Array, Array, Array]:
    """A'V^-1 A, Z'V^-1 Z and Z'V^-1 A of each group, V = I + Z Lambda Lambda'Z'.

    (I + F F')^-1 = E'E + U'U with U = (I + F'F)^-1 F', E = I - F U: nothing cancels in the first.

    Parameters
    ----------
    Z : ndarray (q, n)
    A : ndarray (p + 1, n)
        Written into.
    """
    starts, sizes, q = ptr[:-1], np.diff(ptr), len(Lambda)
    F = Lambda.T @ Z
    N = group_products(Z, Z, starts)
    B = Lambda.T @ N @ Lambda
    B[:, range(q), range(q)] += 1.0
    U = inverse_and_determinant(B)[0] @ group_products(F, A, starts)
    for a in range(q):
        for j in range(len(A)):
            A[j] -= F[a] * np.repeat(U[:, a, j], sizes)
    gram = group_products(A, A, starts) + U.swapaxes(1, 2) @ U
    H = group_products(Z, A, starts)
    G = np.linalg.solve(np.eye(q) + N @ (Lambda @ Lambda.T), N)
    return gram, 0.5 * (G + G.swapaxes(1, 2)), H


def _orders(row: NDArray[np.intp], column: NDArray[np.intp]) -> list[list[tuple[int, int]]]:
    """The one or two orders (x, y) of each entry of vech."""
    return [
        [(int(x), int(y))] if x == y else [(int(x), int(y)), (int(y), int(x))]
        for x, y in zip(row, column, strict=True)
    ]


def _products(
    G: Array, H: Array, row: NDArray[np.intp], column: NDArray[np.intp]
) -> tuple[Array, Array, Array]:
    """Trace, quad and info of groups, from Z'V^-1 Z (b, q, q) and Z'V^-1 A (b, q, p + 1)."""
    b, K, p1 = len(G), len(row), H.shape[2]
    orders = _orders(row, column)
    trace, info, quad = np.zeros((b, K)), np.zeros((b, K, K)), np.zeros((b, K, p1, p1))
    for k in range(K):
        for x, y in orders[k]:
            trace[:, k] += G[:, x, y]
            quad[:, k] += H[:, x, :, None] * H[:, y, None, :]
            for other in range(K):
                for z, u in orders[other]:
                    info[:, k, other] += 0.5 * G[:, u, x] * G[:, y, z]
    return trace, quad, info


def _kr_of_groups(
    G: Array, H: Array, row: NDArray[np.intp], column: NDArray[np.intp], S: Array
) -> Array:
    """tr(S kr_kl) of each group, kr_kl = H'E_k G E_l H; (b, K, K)."""
    P = H @ S @ H.swapaxes(1, 2)
    orders, K = _orders(row, column), len(row)
    out = np.zeros((len(G), K, K))
    for k in range(K):
        for x, y in orders[k]:
            for other in range(K):
                for z, u in orders[other]:
                    out[:, k, other] += G[:, y, z] * P[:, u, x]
    return out


def _of_blocks(fit: LMMResult, root: Array, derivatives: bool) -> Iterator[GroupTotals]:
    """Of several factors or with a residual structure: V of each group is formed."""
    factor = outermost(fit)
    clusters: Any = fit._need(fit._clusters, "influence")
    for block in blocks(fit):
        inverse = V_inverse(block.V)
        A = np.concatenate([block.X @ root, block.r[:, :, None]], axis=2)
        W = inverse @ A
        dV = _derivatives(fit, block) if derivatives else np.zeros((len(A), 0, *block.V.shape[1:]))
        inverse_dV = inverse[:, None] @ dV
        U = dV @ W[:, None]
        X = U[..., :-1]
        if len(fit._grouping) > 1:
            group = clusters.codes[factor][block.rows[:, 0]]
        else:
            group = np.searchsorted(clusters.ptr, block.places[:, 0], side="right") - 1
        yield GroupTotals(
            group=group,
            n=np.full(len(group), block.rows.shape[1]),
            gram=A.swapaxes(1, 2) @ W,
            trace=np.trace(inverse_dV, axis1=2, axis2=3),
            quad=W.swapaxes(1, 2)[:, None] @ U,
            info=0.5 * np.einsum("bkij,blji->bkl", inverse_dV, inverse_dV),
            kr_with=partial(_trace, X.swapaxes(2, 3)[:, :, None] @ (inverse[:, None] @ X)[:, None]),
        )


def _trace(kr: Array, S: Array) -> Array:
    """tr(S kr_kl) of each group, (b, K, K)."""
    return np.asarray(np.einsum("bij,bklij->bkl", S, kr))


def _derivatives(fit: LMMResult, block: Blocks) -> Array:
    """Derivatives of V by vech(D) and kappa, (b, K, k, k)."""
    by_kappa = residual_derivatives(fit, block.places)
    return np.concatenate([random_derivatives(fit, block), by_kappa], axis=1)
