"""The fit of one of many responses, with the names that a fit by itself has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.terms import Term
from lmmfast.inference.wald import coefficient_table
from lmmfast.report.varcorr import VarCorr

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.report.summary import Summary


@dataclass(frozen=True, eq=False)
class ResponseFit:
    """The fit of one of many responses: what `ManyFits` holds of it, named as in `LMMResult`.

    It holds neither rows nor groups: random effects, fitted values and standard errors of the
    variances are those of `lmmfast.fit` for this response.

    Attributes
    ----------
    y_name, group_name : str
    params, bse : pandas.Series (p,)
    theta : pandas.Series (n_theta,)
        Variance parameters, the residual variance last.
    varcorr : VarCorr
    llf, decrement : float
    status : str
        "converged", "converged on the boundary", or what went wrong.
    nobs, ngroups, evaluations : int
    method : str
        "REML" or "ML".
    n_flat : int
        Number of variance parameters that the data cannot tell apart from the others.
    """

    y_name: str
    group_name: str
    params: pd.Series[float]
    bse: pd.Series[float]
    theta: pd.Series[float]
    varcorr: VarCorr = field(repr=False)
    llf: float
    decrement: float
    status: str
    nobs: int
    ngroups: int
    evaluations: int
    method: str
    n_flat: int = 0

    @property
    def converged(self) -> bool:
        """Whether there is a certified optimum."""
        return self.status.startswith("converged")

    # -- fixed effects ---------------------------------------------------------------------------

    @property
    def tvalues(self) -> pd.Series[float]:
        """Estimates over their standard errors (p,)."""
        return self.params / self.bse

    @property
    def pvalues(self) -> pd.Series[float]:
        """Two-sided p-values (p,) from the normal distribution."""
        return self.tidy()["p_value"].rename(None)

    def tidy(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return one row for each fixed effect, as `LMMResult.tidy`."""
        return coefficient_table(self.params, self.bse, alpha)

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return Wald intervals of the fixed effects, as `LMMResult.conf_int`."""
        return self.tidy(alpha)[["conf_low", "conf_high"]].set_axis([0, 1], axis=1)

    # -- variances -------------------------------------------------------------------------------

    @property
    def scale(self) -> float:
        """Residual variance (with weights: of a row of weight one)."""
        return self.varcorr.scale

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return self.varcorr.sigma

    @property
    def cov_re(self) -> pd.DataFrame:
        """Covariance matrix D of the random effects of a group (q, q)."""
        return self.varcorr.cov

    # -- likelihood ------------------------------------------------------------------------------

    @property
    def deviance(self) -> float:
        """Return -2 llf; for REML the REML criterion."""
        return -2 * self.llf

    @property
    def n_params(self) -> int:
        """Fixed effects plus variance parameters, less those that the data cannot tell apart."""
        return len(self.params) + len(self.theta) - self.n_flat

    @property
    def aic(self) -> float:
        """Return -2 llf + 2 n_params."""
        return self.deviance + 2 * self.n_params

    @property
    def bic(self) -> float:
        """Return -2 llf + n_params log(nobs)."""
        return self.deviance + self.n_params * float(np.log(self.nobs))

    @property
    def df_resid(self) -> int:
        """Rows less fixed effects."""
        return self.nobs - len(self.params)

    # -- printing --------------------------------------------------------------------------------

    def summary(self, alpha: float = 0.05) -> Summary:
        """Return the report, without what takes the data."""
        from lmmfast.report.summary import summarise_response

        return summarise_response(self, alpha)

    def __repr__(self) -> str:
        """Return one paragraph."""
        effects = ", ".join(f"{name} {value:.6g}" for name, value in self.params.items())
        return (
            f"<ResponseFit {self.method} of {self.y_name!r}: {self.nobs} rows, {self.ngroups} "
            f"groups of {self.group_name!r}, log-likelihood {self.llf:.6f}; {effects}; "
            f"{self.status}>"
        )


def varcorr_of(terms: tuple[Term, ...], D: Array, scale: float) -> VarCorr:
    """Covariance matrices of terms out of that of all effects of a group (q, q)."""
    ends = np.cumsum([len(term.names) for term in terms])
    blocks = [
        D[end - len(term.names) : end, end - len(term.names) : end].copy()
        for term, end in zip(terms, ends, strict=True)
    ]
    return VarCorr(terms, blocks, scale)
