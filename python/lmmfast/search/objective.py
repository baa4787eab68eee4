"""From totals to likelihood, score and information: small dense algebra, no pass over the data.

Everything is in the working basis and at Vdot = V / sigma2; sigma2 is profiled out
(docs/algorithm.md, section 3, eq. 3.4-3.13).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.engines.totals import Totals
from lmmfast.errors import ConvergenceError

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Problem:
    """What does not change during a fit.

    Attributes
    ----------
    keep : ndarray of int (k,)
        Columns of X that are linearly independent.
    n_obs : int
    reml : bool
    constant : float
        What the log-likelihood on the user's scale has on top of that in the working basis.
    """

    keep: NDArray[np.intp]
    n_obs: int
    reml: bool
    constant: float = 0.0

    @property
    def df(self) -> int:
        """Divisor of the residual sum of squares: n (ML) or n - p (REML)."""
        return self.n_obs - len(self.keep) if self.reml else self.n_obs


class Evaluation:
    """Profiled log-likelihood and its derivatives by vech(Ddot) at one point.

    Raises
    ------
    ConvergenceError
        If the totals are not finite or X'V^-1 X is not positive definite.
    """

    def __init__(self, problem: Problem, totals: Totals) -> None:
        self.problem, self.totals = problem, totals
        rows = np.append(problem.keep, totals.gram.shape[0] - 1)
        self._rows = np.ix_(rows, rows)
        gram = totals.gram[self._rows]
        finite = np.isfinite(gram).all() and np.isfinite(totals.logdet)
        if not (finite and (np.diag(gram) > 0).all()):
            raise ConvergenceError("the log-likelihood is not finite here")
        scale = np.sqrt(np.diag(gram))
        try:
            self._root = np.linalg.cholesky(gram / np.outer(scale, scale)) * scale[:, None]
        except np.linalg.LinAlgError:
            raise ConvergenceError("X'V^-1 X is not positive definite here") from None

    def _kept(self, sums: Array) -> Array:
        """Rows and columns of the kept columns of X and of y, from the last two axes."""
        rows, columns = self._rows
        return np.asarray(sums[..., rows, columns])

    @cached_property
    def S_inv_root(self) -> Array:
        """C with S^-1 = C C' for S = X'Vdot^-1 X, (p, p)."""
        from scipy.linalg import lapack  # BLAS threads would cost more than they save

        root = self._root[:-1, :-1]
        if not len(root):
            return np.empty((0, 0))
        return np.asarray(lapack.dtrtri(root, lower=1)[0].T)

    @cached_property
    def beta(self) -> Array:
        """Generalised least squares of the working residual, (p,)."""
        shift = self.totals.shift
        return self._own_beta if shift is None else self._own_beta + shift[self.problem.keep]

    @cached_property
    def _own_beta(self) -> Array:
        """Beta of the response that the totals are of."""
        return np.asarray(self.S_inv_root @ self._root[-1, :-1])

    @cached_property
    def c(self) -> Array:
        """(-beta, 1), for the response that the totals are of."""
        return np.append(-self._own_beta, 1.0)

    @property
    def sigma2(self) -> float:
        """Residual variance that maximises the likelihood at this Ddot."""
        return float(self._root[-1, -1] ** 2 / self.problem.df)

    @property
    def loglik(self) -> float:
        """Log-likelihood (ML) or restricted log-likelihood (REML) on the user's scale."""
        df = self.problem.df
        value = df * (LOG_2PI + np.log(self.sigma2) + 1) + self.totals.logdet
        if self.problem.reml:
            value += 2 * np.log(np.diag(self._root)[:-1]).sum()
        return float(self.problem.constant - 0.5 * value)

    @cached_property
    def _quad(self) -> Array:
        return self._kept(self.totals.quad)

    @cached_property
    def _quad_S(self) -> Array:
        """C'quad_k C, (K, p, p)."""
        C = self.S_inv_root
        return np.asarray(C.T @ self._quad[:, :-1, :-1] @ C)

    @cached_property
    def residual_quad(self) -> Array:
        """r'Vdot^-1 dV_k Vdot^-1 r / sigma2, (K,)."""
        return np.asarray((self._quad @ self.c) @ self.c / self.sigma2)

    @cached_property
    def trace(self) -> Array:
        """tr(Vdot^-1 dV_k) (ML) or tr(P dV_k) (REML), (K,)."""
        if not self.problem.reml:
            return self.totals.trace
        return self.totals.trace - np.trace(self._quad_S, axis1=1, axis2=2)

    @cached_property
    def score(self) -> Array:
        """Derivative of the profiled log-likelihood by vech(Ddot), (K,)."""
        return 0.5 * (self.residual_quad - self.trace)

    @cached_property
    def info(self) -> Array:
        """Expected information for vech(Ddot) at fixed sigma2, (K, K).

        For REML exact where ``kr`` is at hand, else that of ML, whose relative error is of the
        order p / m.
        """
        kr = self.totals.kr
        if not self.problem.reml or kr is None or self.totals.average:
            return self.totals.info
        C = self.S_inv_root
        kr_S: Array = np.einsum("klij,ij->kl", self._kept(kr)[..., :-1, :-1], C @ C.T)
        quads: Array = np.einsum("kij,lji->kl", self._quad_S, self._quad_S)
        return self.totals.info - 0.5 * (kr_S + kr_S.T) + 0.5 * quads

    @property
    def profile_info(self) -> Array:
        """Expected information for vech(Ddot), sigma2 profiled out, (K, K)."""
        with_scale = self._with_scale
        return self.info - 0.5 * np.outer(with_scale, with_scale) / self.problem.df

    @property
    def _with_scale(self) -> Array:
        """Twice the information for vech(Ddot) and log sigma2, sigma2 along, (K,).

        The trace, or for average information the quadratic form that it is the expectation of.
        """
        return self.residual_quad if self.totals.average else self.trace

    @cached_property
    def observed_info(self) -> Array:
        """Negative Hessian of the profiled log-likelihood by vech(Ddot); needs ``kr``, (K, K)."""
        assert self.totals.kr is not None
        kr = self._kept(self.totals.kr)
        quad_c = (self._quad @ self.c)[:, :-1] @ self.S_inv_root
        curvature = (kr @ self.c) @ self.c - quad_c @ quad_c.T
        curvature = 0.5 * (curvature + curvature.T) / self.sigma2
        profile = 0.5 * np.outer(self.residual_quad, self.residual_quad) / self.problem.df
        return np.asarray(curvature - self.info - profile)

    def _padded(self, vech_D: Array) -> Array:
        """Vech(Ddot) with zeros for the parameters kappa, (K,)."""
        return np.append(vech_D, np.zeros(len(self.totals.trace) - len(vech_D)))

    def joint_info(self, vech_D: Array) -> Array:
        """Expected information for (vech(Ddot), kappa, sigma2) in units of sigma2.

        V is homogeneous of degree one in (D, sigma2), sum_k D_k dV_k + sigma2 dV_sigma2 = V, which
        gives the row of sigma2 from the others; kappa, the parameters of a residual structure, are
        free of scale.
        """
        vech_D = self._padded(vech_D)
        K, trace = len(vech_D), self._with_scale
        out = np.empty((K + 1, K + 1))
        out[:K, :K] = self.info
        out[:K, K] = out[K, :K] = 0.5 * trace - self.info @ vech_D
        out[K, K] = 0.5 * self.problem.df - trace @ vech_D + vech_D @ self.info @ vech_D
        return out

    def joint_score(self, vech_D: Array) -> Array:
        """Score for (vech(Ddot), kappa, sigma2) in units of sigma2, (K + 1,)."""
        vech_D = self._padded(vech_D)
        return np.append(self.score, -self.score @ vech_D)
