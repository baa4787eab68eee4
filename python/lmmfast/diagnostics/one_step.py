"""Variance parameters without a group, by one step of Fisher's scoring from those with it.

The totals of the other groups are those of all less its own, so score and expected information
without the group cost no pass over the rows (docs/algorithm.md, eq. 3.6-3.8). The step is taken on
the natural parameters; with the observed information, or on roots of D, it can go anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.diagnostics.cluster_totals import GroupTotals, whole_totals
from lmmfast.diagnostics.deletion import Deletion
from lmmfast.diagnostics.small_matrices import inverse_and_determinant
from lmmfast.search.estimates import working_by_natural
from lmmfast.search.objective import Evaluation

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


@dataclass(frozen=True, eq=False)
class Step:
    """Steps of b groups.

    Attributes
    ----------
    theta : ndarray (b, n_theta)
        theta less theta without the group, of the parameters that fits report; NaN where they are
        held: terms on the boundary.
    deletion : Deletion
        What becomes of beta, to first order in the step.
    """

    theta: Array
    deletion: Deletion


class OneStep:
    """Steps from the optimum of a fit.

    Parameters
    ----------
    fit : LMMResult
    evaluation : Evaluation
        Of all groups, at the optimum, with ``kr``.
    """

    def __init__(self, fit: LMMResult, evaluation: Evaluation) -> None:
        self.whole = whole_totals(fit, evaluation)
        self._reml, self._df = evaluation.problem.reml, evaluation.problem.df
        pairs = fit._covariance.pairs
        self._d = evaluation._padded(fit._D[pairs])
        J = working_by_natural(
            evaluation.sigma2, fit._basis, fit._covariance, fit._estimates.D, len(self._d) + 1
        )
        known = np.column_stack([np.diag(fit._working_cov), J]).sum(axis=1)
        free = np.flatnonzero(np.isfinite(known))
        held = np.setdiff1d(np.arange(len(J)), free)
        self._J = J[free]
        self._theta = fit._theta_jacobian[:, free]
        self._lost = (fit._theta_jacobian[:, held] != 0).any(axis=1)

    def of(self, part: GroupTotals, deletion: Deletion) -> Step:
        """Steps of some groups, from where they leave beta at fixed variance parameters."""
        whole, p = self.whole, deletion.move.shape[1]
        known = np.isfinite(deletion.move.sum(axis=1) + deletion.cov.sum(axis=(1, 2)))
        cov = np.where(known[:, None, None], deletion.cov, np.eye(p))
        move = np.where(known[:, None], deletion.move, 0.0)
        c = np.column_stack([move, np.ones(len(move))])
        quad = whole.quad - part.quad
        quad_c = np.einsum("bkij,bj->bki", quad, c)
        score, info, df = self._working(part, cov, c, quad, quad_c)
        score, info = score @ self._J.T, self._by_natural(info)
        change = _solved(info, score)  # theta without the group less theta
        change[~known | (df <= 0)] = np.nan
        theta = -(change @ self._theta.T)
        theta[:, self._lost] = np.nan
        by_working = change @ self._J
        return Step(theta, self._moved(part, deletion, cov, quad, quad_c, by_working))

    def _by_natural(self, info: Array) -> Array:
        """J info J' (b, n, n) of symmetric matrices (b, K + 1, K + 1), as two large products."""
        n, K = self._J.shape
        half = (info.reshape(-1, K) @ self._J.T).reshape(-1, K, n).swapaxes(1, 2)
        return np.asarray((half.reshape(-1, K) @ self._J.T).reshape(-1, n, n))

    def _moved(
        self,
        part: GroupTotals,
        deletion: Deletion,
        cov: Array,
        quad: Array,
        quad_c: Array,
        change: Array,
    ) -> Deletion:
        """Deletion after a change (b, K + 1) of the working parameters.

        The derivative of beta by parameter k is -C X'V^-1 V_k V^-1 r, that of C = (X'V^-1 X)^-1 is
        C X'V^-1 V_k V^-1 X C; of sigma2 they follow from the others, V being homogeneous. So is C,
        and where V is linear it is concave: C stays positive definite wherever theta is allowed.
        """
        by_D = change[:, :-1] - change[:, -1:] * self._d
        v = np.einsum("bk,bkp->bp", by_D, quad_c[..., :-1])
        Q = np.einsum("bk,bkij->bij", by_D, quad[:, :, :-1, :-1])
        Q += change[:, -1, None, None] * (self.whole.gram - part.gram)[:, :-1, :-1]
        moved = cov + cov @ Q @ cov
        ratio = inverse_and_determinant(moved)[1]
        diagonal = np.diagonal(moved, axis1=1, axis2=2)
        bad = ~((ratio > 0) & (diagonal > 0).all(axis=1))
        moved[bad] = deletion.cov[bad]
        return replace(
            deletion,
            move=deletion.move + (cov @ v[:, :, None])[:, :, 0],
            cov=moved,
            covratio=np.where(bad, deletion.covratio, ratio),
        )

    def _working(
        self, part: GroupTotals, cov: Array, c: Array, quad: Array, quad_c: Array
    ) -> tuple[Array, Array, NDArray[np.int64]]:
        """Score (b, K + 1), information of (vech(D), kappa, sigma2) and df without each group."""
        whole, (b, K) = self.whole, part.trace.shape
        df: NDArray[np.int64] = self._df - part.n
        rho = (quad_c * c[:, None]).sum(axis=2)
        t, info = whole.trace - part.trace, whole.info - part.info
        if self._reml:
            S_quad = (cov[:, None] @ quad[:, :, :-1, :-1]).reshape(b, K, -1)
            p = cov.shape[1]
            t = t - S_quad[:, :, :: p + 1].sum(axis=2) if p else t
            kr = whole.kr_with(cov) - part.kr_with(cov)
            swapped = S_quad.reshape(b, K, p, p).swapaxes(2, 3).reshape(b, K, -1)
            info = info - 0.5 * (kr + kr.swapaxes(1, 2)) + 0.5 * S_quad @ swapped.swapaxes(1, 2)
        score = np.empty((b, K + 1))
        score[:, :K] = 0.5 * (rho - t)
        gram = whole.gram - part.gram
        r2 = ((gram @ c[:, :, None])[:, :, 0] * c).sum(axis=1)
        score[:, K] = 0.5 * (r2 - df) - score[:, :K] @ self._d
        joint = np.empty((b, K + 1, K + 1))
        joint[:, :K, :K] = info
        info_d = info @ self._d
        joint[:, :K, K] = joint[:, K, :K] = 0.5 * t - info_d
        joint[:, K, K] = 0.5 * df - t @ self._d + info_d @ self._d
        return score, joint, df


def _solved(information: Array, score: Array) -> Array:
    """Information^-1 score, (b, k); NaN where it is singular."""
    scale = np.sqrt(np.abs(np.diagonal(information, axis1=1, axis2=2)))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = information / scale[:, :, None] / scale[:, None, :]
    try:
        return np.asarray(np.linalg.solve(scaled, (score / scale)[:, :, None])[:, :, 0] / scale)
    except np.linalg.LinAlgError:
        inverse = np.full(scaled.shape, np.nan)
        for k, one in enumerate(scaled):
            if np.linalg.matrix_rank(one) == len(one):
                inverse[k] = np.linalg.inv(one)
        return np.asarray((inverse @ (score / scale)[:, :, None])[:, :, 0] / scale)
