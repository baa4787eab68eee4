"""Mean squared errors of predictions, their derivatives by the variance parameters, and more.

A prediction is tau = w'(y - X beta) + x'beta with beta estimated and w = V^-1 c for the covariances
c of what is predicted with y. With a = x - X'w and C = (X'V^-1 X)^-1 its mean squared error is
v - w'c + a'C a (Henderson 1975, Biometrics 31, 423-447); for another target than the one that c
belongs to, as an observation whose error is correlated with those of y, it is that of the weights
w + V^-1 X C a. Beside theta it varies with the estimate of theta by W: Kackar and Harville (1984),
Journal of the American Statistical Association 79, 853-862,

    g3 = sum W_kl d_k' V d_l,    d_k = P (V w_k - V_k V^-1 X C a),    w_k = V^-1 (c_k - V_k w),

and its estimate at the estimated theta is too small by as much again: 2 g3 is added (Prasad and Rao
1990, same journal 85, 163-171; Harville and Jeske 1992, 87, 724-731).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array

#: Numbers in the work arrays of targets that are computed together.
MAX_NUMBERS = 1 << 22
Index = NDArray[np.intp]


class Blocks(Protocol):
    """Some blocks of V of the same size n, and what N targets have to do with them.

    Attributes
    ----------
    V : ndarray (k, n, n)
    Xg : ndarray (k, n, p)
        X G with G G' = C.
    own : ndarray of int (N,)
        Block of each target.
    targets : ndarray of int (N,)
        Which targets.
    within : bool
        Whether beta was estimated from these rows, too.
    """

    V: Array
    Xg: Array
    own: Index
    targets: Index
    within: bool

    def c(self, rows: Index) -> tuple[Array, Array | None]:
        """Covariances (len(rows), n) of the signals of some targets, and what targets have more."""

    def dc(self, k: int, rows: Index) -> tuple[Array, Array | None]:
        """Their derivatives by parameter k."""

    def dV(self, k: int, rows: Index, u: Array) -> Array:
        """V_k u (len(rows), n), of the block of each target."""


@dataclass(frozen=True, eq=False)
class Variances:
    """Variances of N signals and targets beside X beta, and their K derivatives.

    Attributes
    ----------
    signal, target : ndarray (N,)
    d_signal, d_target : ndarray (K, N)
    """

    signal: Array
    target: Array
    d_signal: Array
    d_target: Array


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """What is known of beta and theta.

    Attributes
    ----------
    q, r : ndarray (K, p, p), (K, K, p, p) or None
        As in `InferenceTotals`; None where they are not needed.
    W : ndarray (K, K) or None
        Covariance matrix of theta.
    with_theta : bool
        Whether 2 g3 is wanted.
    """

    q: Array | None = None
    r: Array | None = None
    W: Array | None = None
    with_theta: bool = False


@dataclass(frozen=True, eq=False)
class Errors:
    """Of N predictions.

    Attributes
    ----------
    mse : ndarray (N,)
        Given theta.
    df : ndarray (N,)
        Satterthwaite's degrees of freedom of it; infinite where they are not wanted.
    a : ndarray (N, p)
        G'a.
    g3 : ndarray (N,)
        Zero where it is not wanted.
    """

    mse: Array
    df: Array
    a: Array
    g3: Array


def errors_of(xg: Array, variances: Variances, blocks: list[Blocks], known: Uncertainty) -> Errors:
    """Compute errors of N targets, each of which is in one of the blocks.

    Parameters
    ----------
    xg : ndarray (N, p)
        x'G.
    variances : Variances
    blocks : list of Blocks
    known : Uncertainty
    """
    N = len(xg)
    out = Errors(np.empty(N), np.full(N, np.inf), xg.copy(), np.zeros(N))
    K = 0 if known.q is None else len(known.q)
    for block in blocks:
        n = block.V.shape[1]
        step = max(1, MAX_NUMBERS // (max(n, 1) * max(n, K, 1)))
        roots = _inverse_roots(block.V)
        Xw = roots @ block.Xg
        for start in range(0, len(block.own), step):
            rows = np.arange(start, min(start + step, len(block.own)))
            _Some(block, roots, Xw, rows, xg, variances, known).fill(out)
    return out


def expected_signals(blocks: Blocks, r: Array) -> Array:
    """c'V^-1 r (N,) of the targets of blocks, for errors y - X beta r (k, n)."""
    L = np.linalg.cholesky(blocks.V)
    u = np.linalg.solve(L.swapaxes(1, 2), np.linalg.solve(L, r[..., None]))[..., 0]
    N, n = len(blocks.own), r.shape[1]
    out = np.empty(N)
    step = max(1, MAX_NUMBERS // max(n, 1))
    for start in range(0, N, step):
        rows = np.arange(start, min(start + step, N))
        out[rows] = (blocks.c(rows)[0] * u[blocks.own[rows]]).sum(axis=1)
    return out


def _inverse_roots(V: Array) -> Array:
    """L^-1 (k, n, n) with V = L L'."""
    if not V.shape[1]:
        return V
    L = np.linalg.cholesky(V)
    return np.linalg.solve(L, np.broadcast_to(np.eye(V.shape[1]), V.shape))


class _Some:
    """Some targets of blocks; all in coordinates in which V and C are identities."""

    def __init__(
        self,
        block: Blocks,
        roots: Array,
        Xw: Array,
        rows: Index,
        xg: Array,
        variances: Variances,
        known: Uncertainty,
    ) -> None:
        self.block, self.rows, self.known, self.variances = block, rows, known, variances
        self.at = block.targets[rows]
        own = block.own[rows]
        self.root, self.X = roots[own], Xw[own]
        c, more = block.c(rows)
        self.w = self._whiten(c)
        self.more = None if more is None else self._whiten(more)
        self.a = xg[self.at] - self._by_beta(self.w)
        #: V^-1 X C a, of the rows of the block that beta was estimated from.
        self.y = np.einsum("Nnp,Np->Nn", self.X, self.a) if block.within else np.zeros_like(c)

    def _whiten(self, u: Array) -> Array:
        return np.asarray(np.einsum("Nij,Nj->Ni", self.root, u))

    def _by_beta(self, u: Array) -> Array:
        return np.asarray(np.einsum("Nnp,Nn->Np", self.X, u))

    def fill(self, out: Errors) -> None:
        """Write what is wanted of the targets."""
        mse = self.variances.signal[self.at] - (self.w**2).sum(axis=1) + (self.a**2).sum(axis=1)
        mse += self.variances.target[self.at] - self.variances.signal[self.at]
        if self.more is not None:
            mse -= 2 * ((self.w + self.y) * self.more).sum(axis=1)
        out.mse[self.at], out.a[self.at] = np.maximum(mse, 0.0), self.a
        if self.known.q is None:
            return
        K = len(self.known.q)
        d = [self._derivatives(k) for k in range(K)]
        gradient = np.array([one[0] for one in d])
        assert self.known.W is not None
        spread = np.einsum("kN,kl,lN->N", gradient, self.known.W, gradient)
        with np.errstate(divide="ignore", invalid="ignore"):
            out.df[self.at] = np.where(spread >= 0, 2 * mse**2 / spread, np.nan)
        if self.known.with_theta:
            out.g3[self.at] = self._g3([one[1] for one in d], [one[2] for one in d])

    def _derivatives(self, k: int) -> tuple[Array, Array, Array]:
        """Derivative of the mean squared error by parameter k, whitened w_k, and V_k y."""
        assert self.known.q is not None
        q, dV, root = self.known.q[k], self.block.dV, self.root
        dc, more = self.block.dc(k, self.rows)
        Vw = self._whiten(dV(k, self.rows, np.einsum("Nij,Ni->Nj", root, self.w)))
        Vy = self._whiten(dV(k, self.rows, np.einsum("Nij,Ni->Nj", root, self.y)))
        dc = self._whiten(dc)
        qa = self.a @ q
        gradient = (qa * self.a).sum(axis=1) + ((2 * self.y + self.w) * Vw).sum(axis=1)
        gradient += self.variances.d_target[k, self.at] - 2 * ((self.w + self.y) * dc).sum(axis=1)
        w_k = dc - Vw
        if not self.block.within:  # beta is not the best for these rows, and a changes with theta
            gradient -= 2 * (self._by_beta(w_k) * self.a).sum(axis=1)
        if more is not None and self.more is not None:
            gradient -= 2 * ((self.w + self.y) * self._whiten(more)).sum(axis=1)
            # The weights are not the best for this target, and change with theta.
            moved = ((w_k - Vy) * self.more).sum(axis=1)
            if self.block.within:
                by_beta = self._by_beta(self.more)
                moved += ((qa - self._by_beta(w_k)) * by_beta).sum(axis=1)
            gradient -= 2 * moved
        return gradient, w_k, Vy

    def _g3(self, w: list[Array], Vy: list[Array]) -> Array:
        """Sum of W_kl d_k'V d_l."""
        W, q, r = self.known.W, self.known.q, self.known.r
        assert W is not None and q is not None and r is not None
        by_beta = [self._by_beta(one) for one in w]
        qa = [self.a @ one for one in q]
        sign = -1.0 if self.block.within else 1.0
        total = np.zeros(len(self.a))
        for k, j in np.ndindex(W.shape):
            own = (w[k] * w[j]).sum(axis=1) + sign * (by_beta[k] * by_beta[j]).sum(axis=1)
            if self.block.within:
                own -= 2 * ((w[k] * Vy[j]).sum(axis=1) - (by_beta[k] * qa[j]).sum(axis=1))
            own += np.einsum("Np,pq,Nq->N", self.a, r[k, j], self.a) - (qa[k] * qa[j]).sum(axis=1)
            total += W[k, j] * own
        return total
