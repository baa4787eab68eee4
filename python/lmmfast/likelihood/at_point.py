"""The likelihood of a fitted model at any parameters: value, score, information, V.

docs/algorithm.md, sections 3 and 5. Nothing is profiled out here: sigma2 is one of the parameters.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.engines.engine import engine_at
from lmmfast.errors import ConvergenceError, DataError, UnsupportedModelError
from lmmfast.fitting.given import numbers_of, parameters_at
from lmmfast.search.estimates import Estimates, estimates, working_by_natural
from lmmfast.search.evaluate import evaluate
from lmmfast.search.objective import LOG_2PI, Evaluation
from lmmfast.search.optimum import Optimum

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

#: Step of the differences that the observed information is made of, relative to standard errors.
STEP = 1e-3


@dataclass(frozen=True, eq=False)
class LikelihoodPoint:
    """The likelihood at some parameters.

    Attributes
    ----------
    theta : Series (n_theta,)
        Variance parameters, as ``fit.theta``.
    beta : Series (p,)
        As given, or the generalised least squares estimate at theta.
    llf : float
        Log-likelihood at (beta, theta), or restricted log-likelihood at theta.
    score : Series
        Its derivatives: by the coefficients (by maximum likelihood), then by theta.
    """

    theta: pd.Series[float]
    beta: pd.Series[float]
    llf: float
    score: pd.Series[float]
    _at: _Point

    def information(self, kind: str = "expected") -> pd.DataFrame:
        """Information about beta and theta, a block of each.

        Parameters
        ----------
        kind : {"expected", "observed"}
            The expectation of the negative second derivatives, or these themselves: by theta from
            central differences of the score.

        Raises
        ------
        ValueError
            Another word.
        UnsupportedModelError
            Crossed factors with more than 2000 effects, whose engine has average information alone.
        """
        import pandas as pd

        if kind not in ("expected", "observed"):
            raise ValueError(f"kind={kind!r}: choose 'expected' or 'observed'")
        at = self._at
        p, k = len(self.beta), len(self.theta)
        out = np.zeros((p + k, p + k))
        out[:p, :p] = np.linalg.inv(at.estimates.cov_beta)
        if kind == "expected":
            out[p:, p:] = at.expected()
        else:
            rows = at.observed(None if at.reml else np.asarray(self.beta, dtype=np.float64))
            own = rows[:, -k:]
            out[p:, p:] = 0.5 * (own + own.T)
            if not at.reml:
                out[p:, :p] = rows[:, :p]
                out[:p, p:] = rows[:, :p].T
        names = [*self.beta.index, *self.theta.index]
        return pd.DataFrame(out, index=names, columns=names)

    def V(self, group: Any = None, at: Any = None) -> pd.DataFrame:
        """V = Z D Z' + R at these parameters; arguments as of `LMMResult.implied_covariance`."""
        return self._at.fit_here().implied_covariance(group, at)


class _Point:
    """A fit with its parameters somewhere else.

    Parameters
    ----------
    fit : LMMResult
    theta : ndarray (n_theta,)

    Raises
    ------
    DataError
        Parameters out of their range, a fit that holds no data.
    """

    def __init__(self, fit: LMMResult, theta: Array) -> None:
        self.fit, self.theta, self.covariance = fit, theta, fit._covariance
        self.reml = fit.method == "REML"
        basis = fit._basis
        self.phi, sigma2 = parameters_at(self.covariance, basis, theta, fit.theta_names)
        #: In the working basis.
        self.sigma2 = sigma2 / (basis.weight_scale * basis.y_scale**2)
        engine: Any = fit._need(fit._engine, "the likelihood")
        fit._check_data()
        self.engine = engine_at(engine, self.covariance, self.phi)
        self.Lambda = self.covariance.Lambda(self.phi)
        try:
            self.evaluation = self._evaluate(second_order=False)
        except ConvergenceError as error:
            raise DataError(f"there is no likelihood at this theta: {error}") from None
        self.estimates = self._estimates()

    def _evaluate(self, second_order: bool) -> Evaluation:
        return evaluate(self.fit._problem, self.engine, self.Lambda, second_order)

    @property
    def _ratio(self) -> float:
        """The sigma2 that maximises the likelihood here, over that of this point."""
        return self.evaluation.sigma2 / self.sigma2

    def _profile_loglik(self) -> float:
        """Log-likelihood at theta, beta being the estimate here."""
        evaluation, df = self.evaluation, self.evaluation.problem.df
        at_best = df * (LOG_2PI + np.log(evaluation.sigma2) + 1)
        here = df * (LOG_2PI + np.log(self.sigma2) + self._ratio)
        return float(evaluation.loglik + 0.5 * (at_best - here))

    def _estimates(self) -> Estimates:
        evaluation = self.evaluation
        point = Optimum(
            reason="",
            phi=self.phi,
            Lambda=self.Lambda,
            D=self.Lambda @ self.Lambda.T,
            sigma2=self.sigma2,
            beta=evaluation.beta,
            S_inv_root=evaluation.S_inv_root,
            loglik=self._profile_loglik(),
            decrement=np.nan,
            smallest_eigenvalue=np.nan,
            ranks=[],
            multiplier=None,
            trace=[],
        )
        return estimates(point, evaluation.problem.keep, self.fit._basis, self.covariance)

    def from_estimate(self, beta: Array | None) -> Array:
        """Beta less its estimate here, (p,)."""
        own = self.estimates.beta
        return np.zeros(len(own)) if beta is None else beta - own

    def loglik(self, beta: Array | None) -> float:
        """Log-likelihood at (beta, theta)."""
        difference = self.from_estimate(beta)
        away = difference @ np.linalg.solve(self.estimates.cov_beta, difference)
        return float(self.estimates.loglik - 0.5 * away)

    def _jacobian(self) -> Array:
        """Derivatives of (vech(D), kappa, sigma2) in the working basis by theta."""
        n_working = len(self.evaluation.totals.trace) + 1
        J = working_by_natural(
            self.sigma2, self.fit._basis, self.covariance, self.estimates.D, n_working
        )
        T = self.covariance.theta_jacobian(self.estimates.sigma2, self.phi)
        return np.asarray(np.linalg.solve(T.T, J))

    def _c(self, beta: Array | None) -> Array:
        """(-beta, 1) in the working basis, for the response that the totals are of."""
        evaluation, basis = self.evaluation, self.fit._basis
        if beta is None:
            return evaluation.c
        keep = evaluation.problem.keep
        shifted = beta if basis.unit is None else beta - basis.y_shift * basis.unit[keep]
        own = np.linalg.solve(basis.x_map(keep), shifted / basis.y_scale) - basis.beta[keep]
        if evaluation.totals.shift is not None:
            own = own - evaluation.totals.shift[keep]
        return np.append(-own, 1.0)

    def score(self, beta: Array | None = None) -> Array:
        """Derivatives of the log-likelihood by theta at a beta; None: the estimate here."""
        evaluation, c = self.evaluation, self._c(beta)
        quad, gram = (evaluation._kept(a) for a in (evaluation.totals.quad, evaluation.totals.gram))
        own = 0.5 * ((quad @ c) @ c / self.sigma2 - evaluation.trace)
        vech_D = evaluation._padded((self.Lambda @ self.Lambda.T)[self.covariance.pairs])
        rest = (c @ gram @ c) / self.sigma2 - evaluation.problem.df
        by_sigma2 = 0.5 * rest - own @ vech_D
        return np.asarray(self._jacobian() @ np.append(own, by_sigma2))

    def expected(self) -> Array:
        """Expected information about theta."""
        evaluation = self._evaluate(second_order=self.reml)
        if evaluation.totals.average:
            raise UnsupportedModelError(
                "the engine of so many crossed effects has average information alone: use "
                "information('observed')"
            )
        D = (self.Lambda @ self.Lambda.T)[self.covariance.pairs]
        J = self._jacobian()
        return np.asarray(J @ evaluation.joint_info(D) @ J.T)

    def scores(self, beta: Array | None) -> Array:
        """Derivatives by the coefficients, of ML, then by theta."""
        by_beta = np.empty(0) if self.reml else self.beta_score(beta)
        return np.concatenate([by_beta, self.score(beta)])

    def observed(self, beta: Array | None) -> Array:
        """Minus the derivatives of `scores` by theta, from central differences, a row for each."""
        steps = STEP / np.sqrt(np.maximum(np.diag(self._rough_information()), 1e-300))
        rows = []
        for k, step in enumerate(steps):
            ends = []
            for side in (step, -step, step / 2, -step / 2):
                moved = self.theta.copy()
                moved[k] += side
                ends.append(_Point(self.fit, moved).scores(beta))
            wide, narrow = (ends[0] - ends[1]) / (2 * step), (ends[2] - ends[3]) / step
            rows.append((wide - 4 * narrow) / 3)  # Richardson
        return np.array(rows)

    def _rough_information(self) -> Array:
        """Information of about the right size."""
        D = (self.Lambda @ self.Lambda.T)[self.covariance.pairs]
        J = self._jacobian()
        return np.asarray(J @ self.evaluation.joint_info(D) @ J.T)

    def beta_score(self, beta: Array | None) -> Array:
        """Derivatives of the log-likelihood by beta."""
        difference = self.from_estimate(beta)
        return -np.asarray(np.linalg.solve(self.estimates.cov_beta, difference))

    def fit_here(self) -> LMMResult:
        """Return the fit as if its estimates were these parameters, for what V implies."""
        moved = copy.copy(self.fit)
        moved._phi, moved._Lambda = self.phi, self.Lambda
        moved._D = self.Lambda @ self.Lambda.T
        moved._unit = self.fit._basis.y_scale**2 * self.sigma2
        moved._estimates = self.estimates
        return moved


def at_point(fit: LMMResult, theta: Any, beta: Any) -> LikelihoodPoint:
    """Evaluate the likelihood; see `LMMResult.at`."""
    import pandas as pd

    own = _Point(fit, numbers_of(theta, fit.theta_names, "theta"))
    given = None if beta is None else numbers_of(beta, fit.x_names, "beta")
    if given is not None and own.reml:
        raise UnsupportedModelError(
            "the restricted likelihood has no beta, which it is free of: fit with reml=False, or "
            "leave beta= out"
        )
    names, theta_names = fit.x_names, fit.theta_names
    labels = theta_names if own.reml else [*names, *theta_names]
    return LikelihoodPoint(
        theta=pd.Series(own.theta, index=theta_names),
        beta=pd.Series(own.estimates.beta if given is None else given, index=names),
        llf=own.loglik(given),
        score=pd.Series(own.scores(given), index=labels),
        _at=own,
    )
