"""Tails of chi-bar-squared distributions: of tests whose alternatives are a cone.

The statistic is z'Wz - min (z - x)'W(z - x) over the x of a cone, with z normal of mean zero and
covariance matrix W^-1 (Shapiro 1988, International Statistical Review 56, 49-62). It is the square
of the length of z, chi-squared, times a share that depends on the direction of z alone. Directions
are drawn; the length is integrated, so that small probabilities have small relative errors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array, vech_pairs

#: Most steps of a projection, and the relative change at which a draw is done.
MOST_STEPS = 5_000
DONE = 1e-10


class ConeTest:
    """A test whose alternatives are free in some directions, and positive semidefinite in others.

    Parameters
    ----------
    n_free : int
        Directions without a bound.
    blocks : sequence of int
        Sizes of the symmetric matrices that must be positive semidefinite.
    cov : ndarray (d, d)
        Covariance matrix of the estimates of vech of the blocks, one after the other, under the
        hypothesis that all are zero: the free directions are taken out of it.
    """

    def __init__(self, n_free: int, blocks: Sequence[int], cov: Array) -> None:
        self.n_free = n_free
        self._cone = _Cone(blocks)
        scale = self._cone.congruence(np.diag(cov))
        self._cov = cov / np.outer(scale, scale)

    def p_value(
        self, statistic: float, n_sim: int, rng: np.random.Generator
    ) -> tuple[float, float]:
        """Return the probability of a statistic as large, and its Monte Carlo standard error."""
        from scipy.special import chdtrc

        if statistic <= 0:
            return 1.0, 0.0
        dims = self.n_free + len(self._cov)
        with np.errstate(divide="ignore"):
            tails = chdtrc(dims, statistic / self.shares(n_sim, rng))
        return float(tails.mean()), float(tails.std() / np.sqrt(n_sim))

    def shares(self, n_sim: int, rng: np.random.Generator) -> Array:
        """Draw the shares of the squared length, (n_sim,)."""
        g = rng.standard_normal((n_sim, self.n_free + len(self._cov)))
        own = g[:, self.n_free :]
        z = own @ np.linalg.cholesky(self._cov).T
        W = np.linalg.inv(self._cov)
        x = self._cone.nearest(z, 0.5 * (W + W.T))
        within = np.einsum("ni,ij,nj->n", x, W, x)
        whole = np.einsum("ni,ni->n", own, own)
        free = np.einsum("ni,ni->n", g, g) - whole
        return np.asarray((free + np.minimum(within, whole)) / (free + whole))


class _Cone:
    """Products of cones of positive semidefinite matrices, as vech (n, d)."""

    def __init__(self, blocks: Sequence[int]) -> None:
        self._blocks: list[tuple[int, slice]] = []
        start = 0
        for size in blocks:
            stop = start + size * (size + 1) // 2
            self._blocks.append((size, slice(start, stop)))
            start = stop
        #: Off-diagonal entries count twice in the norm of a matrix.
        self._weights = np.concatenate(
            [np.where(row == column, 1.0, 2.0) for row, column in self._pairs()]
        )

    def _pairs(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        return [vech_pairs(size) for size, _ in self._blocks]

    def congruence(self, variances: Array) -> Array:
        """Scales of the entries that leave the cone as it is and bring variances near to one."""
        scales = []
        for (row, column), (_, own) in zip(self._pairs(), self._blocks, strict=True):
            of_effect = variances[own][row == column] ** 0.25
            scales.append(of_effect[row] * of_effect[column])
        return np.concatenate(scales)

    def nearest(self, z: Array, W: Array) -> Array:
        """Points of the cone (n, d) nearest to z (n, d) in the metric W.

        Accelerated projected gradients (Beck and Teboulle 2009), begun anew where they turn
        (O'Donoghue and Candes 2015); draws that are done leave.
        """
        root = np.sqrt(self._weights)
        metric = W / np.outer(root, root)  # in coordinates in which the projection is orthogonal
        step = 1.0 / np.linalg.eigvalsh(metric)[-1]
        target, out = z * root, self._projected(z)
        left = np.arange(len(z))
        x, before, age = out * root, out * root, np.zeros(len(z))
        for _ in range(MOST_STEPS):
            ahead = x + (age / (age + 3))[:, None] * (x - before)
            new = self._projected((ahead - step * (ahead - target[left]) @ metric) / root) * root
            turns = np.einsum("ni,ni->n", ahead - new, new - x) > 0
            change = np.linalg.norm(new - x, axis=1)
            x, before, age = new, x, np.where(turns, 0.0, age + 1)
            active = change > DONE * np.linalg.norm(target[left], axis=1)
            out[left[~active]] = x[~active] / root
            left, x, before, age = left[active], x[active], before[active], age[active]
            if not len(left):
                return out
        out[left] = x / root
        return out

    def _projected(self, z: Array) -> Array:
        """Positive semidefinite parts of the blocks."""
        out = np.empty_like(z)
        for (row, column), (size, own) in zip(self._pairs(), self._blocks, strict=True):
            if size == 1:
                out[:, own] = np.maximum(z[:, own], 0.0)
                continue
            A = np.zeros((len(z), size, size))
            A[:, row, column] = A[:, column, row] = z[:, own]
            values, vectors = np.linalg.eigh(A)
            A = (vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.swapaxes(1, 2)
            out[:, own] = A[:, row, column]
        return out
