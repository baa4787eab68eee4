"""What leaving out rows does to beta and its covariance matrix, at fixed variance parameters.

In coordinates in which X'V^-1 X is the identity a group i of rows, independent of all others, has
G_i = X_i'V_i^-1 X_i and s_i = X_i'V_i^-1 (y_i - X_i beta), and

    beta - beta_(i) = (I - G_i)^-1 s_i,   X'V^-1 X without it: I - G_i.

Any rows I, independent of others or not, have with a_I = (V^-1 X)_I and P_I = (V^-1)_II - a_I a_I'

    beta - beta_(I) = a_I'P_I^-1 (V^-1 r)_I,   (X'V^-1 X)^-1 without them: I + a_I'P_I^-1 a_I

(the rows get a coefficient each; Haslett and Dillane 2004). Cook (1977), Technometrics 19, 15-18;
Belsley, Kuh and Welsch (1980), Regression Diagnostics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.diagnostics.inverse_rows import inverse_rows
from lmmfast.diagnostics.inverse_sets import inverse_sets
from lmmfast.diagnostics.small_matrices import inverse_and_determinant

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Eigenvalues of G_i this near to one: without these rows a coefficient has no estimate.
ALONE = 1e-8


@dataclass(frozen=True, eq=False)
class Deletion:
    """b sets of rows, each left out by itself, in coordinates in which X'V^-1 X is the identity.

    Attributes
    ----------
    n : ndarray of int (b,)
        Rows of the sets.
    leverage : ndarray (b,)
        Their part of the trace of X (X'V^-1 X)^-1 X'V^-1, which is p.
    move : ndarray (b, p)
        beta less beta without them.
    cov : ndarray (b, p, p)
        Covariance matrix of beta without them. NaN, as ``move``, where there is no such beta.
    covratio : ndarray (b,)
        Its determinant.
    """

    n: NDArray[np.int64]
    leverage: Array
    move: Array
    cov: Array
    covratio: Array


@dataclass(frozen=True, eq=False)
class Measures:
    """Measures of influence on beta of b sets of rows.

    Attributes
    ----------
    n, leverage
        See `Deletion`.
    cooks_d : ndarray (b,)
        (beta - beta_(i))'X'V^-1 X (beta - beta_(i)) / p.
    covratio : ndarray (b,)
        Determinant of the covariance matrix of beta without the rows over that with them.
    dfbetas : ndarray (b, p)
        beta - beta_(i) in standard errors of beta_(i).
    """

    n: NDArray[np.int64]
    leverage: Array
    cooks_d: Array
    covratio: Array
    dfbetas: Array

    def at(self, places: NDArray[np.intp]) -> Measures:
        """Return those of the sets at some places."""
        return Measures(
            self.n[places],
            self.leverage[places],
            self.cooks_d[places],
            self.covratio[places],
            self.dfbetas[places],
        )


def without_groups(gram: Array, n: NDArray[np.int64]) -> Deletion:
    """Leave out independent groups, each by itself.

    Parameters
    ----------
    gram : ndarray (b, p + 1, p + 1)
        Of [X r] V^-1 [X r] of each group.
    n : ndarray (b,)
        Their rows.
    """
    G, s = gram[:, :-1, :-1], gram[:, :-1, -1]
    p = G.shape[1]
    left = np.eye(p) - G
    leverage = np.trace(G, axis1=1, axis2=2)
    alone = leverage > 1 - ALONE
    alone[alone] = np.linalg.eigvalsh(G[alone])[:, -1:].max(axis=1, initial=-1.0) > 1 - ALONE
    left[alone] = np.eye(p)
    cov, determinant = inverse_and_determinant(left)
    cov[alone] = np.nan
    return Deletion(n, leverage, (cov @ s[:, :, None])[:, :, 0], cov, 1.0 / determinant)


def measures(deletion: Deletion, root: Array) -> Measures:
    """Cook's distance and its kin.

    Parameters
    ----------
    root : ndarray (p, p)
        G, with G G' the covariance matrix of beta.
    """
    move, cov, p = deletion.move, deletion.cov, len(root)
    cooks_d = (move**2).sum(axis=1) / p if p else np.full(len(move), np.nan)
    variances = np.einsum("bij,ij->bi", root @ cov, root)
    return Measures(
        deletion.n,
        deletion.leverage,
        cooks_d,
        np.where(np.isnan(cooks_d), np.nan, deletion.covratio),
        move @ root.T / np.sqrt(variances),
    )


def joined(parts: list[Measures]) -> Measures:
    """Measures of the sets of several parts."""
    return Measures(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("n", "leverage", "cooks_d", "covratio", "dfbetas")
        )
    )


def without_rows(fit: LMMResult, root: Array) -> Measures:
    """Leave out each row by itself, (n,) in the order of the rows used."""
    order, parts, p = [], [], len(root)
    for part in inverse_rows(fit):
        a = part.inverse_X
        P = part.diagonal - (a**2).sum(axis=1)
        alone = ~(P > ALONE * part.diagonal)
        P = np.where(alone, np.nan, P)
        move = a * (part.inverse_r / P)[:, None]
        cooks_d = (move**2).sum(axis=1) / p if p else np.full(len(P), np.nan)
        own = a @ root.T  # C + C a a'C / P is the covariance matrix without the row
        errors = np.sqrt((root**2).sum(axis=1) + own**2 / P[:, None])
        one = np.ones(len(P), dtype=np.int64)
        leverage = (part.X * a).sum(axis=1)
        covratio = part.diagonal / P  # 1 + a'a / P
        order.append(part.rows)
        parts.append(Measures(one, leverage, cooks_d, covratio, move @ root.T / errors))
    return joined(parts).at(np.argsort(np.concatenate(order), kind="stable"))


def without_levels(fit: LMMResult, root: Array, codes: NDArray[np.int64]) -> Measures:
    """Leave out the rows of each level of a grouping factor, (m,) in the order of the levels."""
    order, parts, one = [], [], np.eye(len(root))
    for part in inverse_sets(fit, codes):
        a = part.inverse_X
        values, vectors = np.linalg.eigh(part.inverse - a @ a.swapaxes(1, 2))
        largest = np.diagonal(part.inverse, axis1=1, axis2=2).max(axis=1)
        known = np.where(values > ALONE * largest[:, None], values, np.nan)
        half = vectors.swapaxes(1, 2) @ a / np.sqrt(known)[:, :, None]  # of a'P^-1 a
        r = (vectors.swapaxes(1, 2) @ part.inverse_r[:, :, None])[:, :, 0] / np.sqrt(known)
        cov = one + half.swapaxes(1, 2) @ half
        deletion = Deletion(
            np.full(len(a), a.shape[1]),
            (part.X * a).sum(axis=(1, 2)),
            (half.swapaxes(1, 2) @ r[:, :, None])[:, :, 0],
            cov,
            np.linalg.det(cov),
        )
        order.append(codes[part.rows[:, 0]])
        parts.append(measures(deletion, root))
    return joined(parts).at(np.argsort(np.concatenate(order), kind="stable"))
