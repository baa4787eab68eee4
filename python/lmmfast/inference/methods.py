"""Choose how conclusions about beta are drawn: degrees of freedom, information."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.covariance.joint import JointCovariance
from lmmfast.errors import ConvergenceError, UnsupportedModelError
from lmmfast.inference.cluster_sums import cluster_sums
from lmmfast.inference.counted import CountedDenominators, between_within, inner_outer
from lmmfast.inference.denominators import Denominators, FixedDenominators, inverse_of_information
from lmmfast.inference.kenward_roger import KenwardRoger
from lmmfast.inference.natural_curvature import natural_curvature
from lmmfast.inference.robust import KINDS, Robust
from lmmfast.inference.satterthwaite import Satterthwaite
from lmmfast.inference.totals import (
    InferenceTotals,
    has_linear_residuals,
    inference_totals,
)

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

DDF = (
    "satterthwaite",
    "kenward-roger",
    "kenward-roger-linear",
    "between-within",
    "inner-outer",
    "residual",
    "normal",
)
INFORMATION = ("observed", "expected")


@dataclass(frozen=True)
class Method:
    """How conclusions are drawn.

    Attributes
    ----------
    ddf : str
        One of `DDF`.
    information : {"observed", "expected"} or None
        None: as the method's usual implementation, see `LMMResult.inference`.
    vcov : str
        One of `COVARIANCES`.
    cluster : array (n,) or None
        Clusters of robust variances; None: the outermost grouping factor.
    """

    ddf: str = "satterthwaite"
    information: str | None = None
    vcov: str = "model"
    cluster: Any = None

    def __post_init__(self) -> None:
        check_choice("ddf", self.ddf, DDF)
        check_choice("vcov", self.vcov, tuple(COVARIANCES))
        if self.cluster is not None and self.vcov == "model":
            raise ValueError("cluster= is for robust variances: choose vcov='CR2', for instance")
        if self.vcov != "model" and self.ddf.startswith("kenward-roger"):
            raise ValueError(
                f"ddf={self.ddf!r} has standard errors of its own: with vcov={self.vcov!r} choose "
                "ddf='satterthwaite', 'between-within', 'residual' or 'normal'"
            )
        if self.information is not None:
            check_choice("information", self.information, INFORMATION)

    @property
    def needs_totals(self) -> bool:
        """Whether it needs second derivatives of the likelihood."""
        return self.ddf == "satterthwaite" or self.ddf.startswith("kenward-roger")

    @property
    def needs_rows(self) -> bool:
        """Whether it needs the rows, of which derivatives of the likelihood are not enough."""
        return self.vcov != "model" or self.ddf in COUNTED

    @property
    def adjusts_errors(self) -> bool:
        """Whether standard errors are not those of (X'V^-1 X)^-1."""
        return self.vcov != "model" or self.ddf.startswith("kenward-roger")


def denominators(fit: LMMResult, method: Method) -> Denominators:
    """Set up a method for a fit: the covariance matrix of beta, and degrees of freedom."""
    return COVARIANCES[method.vcov](fit, method)


def of_the_model(fit: LMMResult, method: Method) -> Denominators:
    """Set up a method whose covariance matrix is that of the model.

    Raises
    ------
    UnsupportedModelError
        Kenward and Roger's method by maximum likelihood, or where the engine lacks what it takes.
    DataError
        A fit that holds no data.
    ConvergenceError
        Kenward and Roger's method where the likelihood is not finite; Satterthwaite's degrees of
        freedom are NaN there.
    """
    cov = fit._estimates.cov_beta
    if method.ddf in COUNTED:
        return CountedDenominators(cov, COUNTED[method.ddf](fit))
    if not method.needs_totals:
        return FixedDenominators(cov, float(fit.df_resid) if method.ddf == "residual" else np.inf)
    try:
        totals = fit._inference_totals
    except ConvergenceError:
        if method.adjusts_errors:
            raise
        return FixedDenominators(cov, np.nan)
    if not method.adjusts_errors:
        return Satterthwaite(totals, _information(totals, method, "observed"))
    if totals.r is None:  # so many numbers that they are not kept
        totals = inference_totals(fit)
    _refuse_kenward_roger(fit, totals)
    structured = not fit.residual.is_independent
    information = _information(totals, method, "observed" if structured else "expected")
    return KenwardRoger(totals, information, _curvature(fit, totals, method, information))


def theta_covariance(fit: LMMResult, method: Method) -> tuple[InferenceTotals, Array]:
    """Derivatives by the variance parameters, and the covariance matrix of these (k, k).

    With the information that the method takes; methods that take none have the observed one.
    """
    totals = fit._inference_totals
    expected = method.ddf.startswith("kenward-roger") and fit.residual.is_independent
    information = _information(totals, method, "expected" if expected else "observed")
    return totals, inverse_of_information(information)


def robust(fit: LMMResult, method: Method) -> Denominators:
    """Set up robust variances, with degrees of freedom of their own or those asked for.

    Raises
    ------
    DataError
        A fit that holds no data, clusters that split groups.
    UnsupportedModelError
        Crossed grouping factors without clusters.
    """
    found = Robust(cluster_sums(fit, method.cluster), method.vcov)
    if method.ddf == "satterthwaite":
        return found
    if method.ddf in COUNTED:
        return CountedDenominators(found.cov, COUNTED[method.ddf](fit))
    df = float(fit.df_resid) if method.ddf == "residual" else np.inf
    return FixedDenominators(found.cov, df)


def _information(totals: InferenceTotals, method: Method, usual: str) -> Array:
    """Information of the variance parameters; expected where there is no other."""
    wanted = method.information or usual
    if wanted == "expected" or totals.observed is None:
        return totals.expected
    return totals.observed


def _curvature(
    fit: LMMResult, totals: InferenceTotals, method: Method, information: Array
) -> Array:
    """Sum of W_kl h_kl by the parameters that theta has, in which SAS expands the bias."""
    covariance = fit._covariance
    linear = method.ddf == "kenward-roger-linear" or has_linear_residuals(fit.residual)
    if linear or totals.h is None or not isinstance(covariance, JointCovariance):
        return np.zeros((len(totals.root),) * 2)
    W = inverse_of_information(information)
    return natural_curvature(covariance, fit._phi, fit._estimates.sigma2, W, totals)


def _refuse_kenward_roger(fit: LMMResult, totals: InferenceTotals) -> None:
    if fit.method != "REML":
        raise UnsupportedModelError(
            "Kenward and Roger's method is one of REML: fit with reml=True, or use "
            "ddf='satterthwaite'"
        )
    if totals.r is None:
        raise UnsupportedModelError(
            "Kenward and Roger's method needs second-order sums, which models of crossed factors "
            "with so many effects do not have: use ddf='satterthwaite'"
        )
    if not all(structure.linear for structure in fit._covariance.structures):
        raise UnsupportedModelError(
            "Kenward and Roger's method is for D linear in its parameters, which heterogeneous "
            "compound symmetry is not: use ddf='satterthwaite', or D.cs(hom=True)"
        )


#: Degrees of freedom by counting, of each coefficient.
COUNTED: dict[str, Callable[[LMMResult], Array]] = {
    "between-within": between_within,
    "inner-outer": inner_outer,
}

#: Covariance matrices of beta by name, each with its degrees of freedom and tests.
COVARIANCES: dict[str, Callable[[LMMResult, Method], Denominators]] = {
    "model": of_the_model,
    **dict.fromkeys(KINDS, robust),
}
