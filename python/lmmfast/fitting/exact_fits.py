"""Responses that a model of correlated residuals can fit exactly: the likelihood has no maximum.

Where the variance of some rows goes to zero, V of these rows becomes singular but for what their
random effects span. Is nothing left there of y but what fixed effects explain, the determinant goes
to zero and the residuals with it (docs/residual.md, section 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.design.design import Design
from lmmfast.errors import NotIdentifiableError
from lmmfast.fitting.identify import refusal
from lmmfast.residual.model import ResidualModel

#: So many rows are looked at by dense algebra at most.
MOST_ROWS = 500
#: Singular values below this part of the largest are zero.
ZERO = 1e-9
#: What is left of a response that is fitted exactly, of its norm.
NOTHING = 1e-11

Effects = Sequence[tuple[NDArray[np.int64], Array]]


def check_exact_fits(
    design: Design,
    model: ResidualModel,
    X: Array,
    y: Array,
    effects: Effects,
    reml: bool,
    by_chance: bool = False,
) -> None:
    """Refuse a response that the model fits exactly, in all rows or in those of one variance.

    Parameters
    ----------
    X : ndarray (n, p)
        Columns that are linearly independent; rows in the order of the model.
    y : ndarray (n,)
    effects : sequence of (ndarray of int (n,), ndarray (n, q))
        For each grouping factor the level of each row and its columns of Z.
    reml : bool
    by_chance : bool
        Whether to look also where there are more rows than effects.

    Raises
    ------
    NotIdentifiableError
    """
    for what, rows in _subsets(model):
        n_effects = sum(len(np.unique(codes[rows])) * Z.shape[1] for codes, Z in effects)
        is_likely = by_chance or len(rows) <= n_effects + X.shape[1]
        if len(rows) > MOST_ROWS or not is_likely:
            continue
        Z = _all_effects([(codes[rows], part[rows]) for codes, part in effects], len(rows))
        if _is_exact(X[rows], y[rows], Z, reml):
            raise _refusal(design, what, bool(effects), reml)


def _refusal(design: Design, what: str, has_effects: bool, reml: bool) -> NotIdentifiableError:
    who = "fixed and random effects together" if has_effects else "the fixed effects"
    way_out = "" if reml else "use REML, "
    if not what:
        return refusal(
            design,
            f"{who} can fit {design.y_name!r} exactly: the residual variance goes to zero and the "
            f"likelihood has no maximum; {way_out}leave out random effects of "
            f"{design.group_name!r}, or fixed effects",
        )
    return refusal(
        design,
        f"{who} can fit {design.y_name!r} exactly in the few rows of {what}: their residual "
        f"variance goes to zero and the likelihood has no maximum; {way_out}give {what} no "
        "variance of its own, or leave out effects",
    )


def _subsets(model: ResidualModel) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Rows that have a variance in common, and what it is called; first all rows, ""."""
    n = len(model.rows)
    yield "", np.arange(n)
    for part in model.parameters.variances:
        if part.kind != "levels" or model.G is None:
            continue
        own = model.G[:, part.params]
        level = np.where(own.any(axis=1), 1 + np.argmax(own, axis=1), 0)
        order = np.argsort(level, kind="stable")
        ends = np.searchsorted(level[order], np.arange(len(part.labels) + 1))
        for k, label in enumerate(part.labels):
            yield label, order[ends[k] : ends[k + 1]]


def _all_effects(effects: Effects, n: int) -> Array:
    """Z (n, N) of all effects of some rows."""
    blocks = [np.zeros((n, 0))]
    for codes, Z in effects:
        _, level = np.unique(codes, return_inverse=True)
        block = np.zeros((n, level.max() + 1, Z.shape[1]))
        block[np.arange(n), level] = Z
        blocks.append(block.reshape(n, -1))
    return np.hstack(blocks)


def _is_exact(X: Array, y: Array, Z: Array, reml: bool) -> bool:
    """Whether X fits exactly what Z leaves of y, and Z leaves something."""
    rest = _complement(Z)
    if not rest.shape[1]:
        return False
    X_left, y_left = rest.T @ X, rest.T @ y
    beyond = _complement(X_left, np.linalg.norm(X, axis=0))
    if not beyond.shape[1]:
        return not reml and X.shape[1] > 0
    return float(np.linalg.norm(beyond.T @ y_left)) <= NOTHING * float(np.linalg.norm(y))


def _complement(columns: Array, sizes: Array | None = None) -> Array:
    """Orthonormal basis (n, n - rank) of what is orthogonal to columns (n, k), of these sizes."""
    if sizes is None:
        sizes = np.linalg.norm(columns, axis=0)
    used = sizes > 0
    U, values, _ = np.linalg.svd(columns[:, used] / sizes[used])
    return np.asarray(U[:, int(np.sum(values > ZERO)) :])
