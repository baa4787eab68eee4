"""The fitted model: estimates by name, inference, random effects; predictions are in predict.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance, natural_names
from lmmfast.data.fingerprints import Fingerprints
from lmmfast.data.frame import Rows
from lmmfast.design.design import Design
from lmmfast.engines.engine import Engine
from lmmfast.errors import ConvergenceError, DataError
from lmmfast.fitting.redundancy import Redundancy, find_redundancy
from lmmfast.grouping.clusters import Clusters
from lmmfast.handed_out import HandedOut
from lmmfast.implied import implied
from lmmfast.inference.denominators import Denominators
from lmmfast.inference.hypotheses import LinearTest, linear_test, read_hypothesis
from lmmfast.inference.kept import kept_denominators
from lmmfast.inference.methods import Method, denominators
from lmmfast.inference.totals import InferenceTotals, inference_totals
from lmmfast.inference.wald import coefficient_table, two_sided_p
from lmmfast.literals import (
    Interval,
    LagKind,
    LagResiduals,
    Missing,
    NewLevels,
    ResidualKind,
    ResidualPart,
    Uncertainty,
)
from lmmfast.packing.basis import Basis, check_scales
from lmmfast.pickled import checked, with_version
from lmmfast.prediction import predict as prediction
from lmmfast.prediction.new_rows import FactorEffects
from lmmfast.prediction.placed import Inputs
from lmmfast.prediction.rows_used import n_of
from lmmfast.report.varcorr import VarCorr
from lmmfast.residual.kinds import Independent
from lmmfast.residual.model import ResidualModel
from lmmfast.residual.place import KnownColumn, known_columns
from lmmfast.residual.structure import ResidualStructure
from lmmfast.search.certificate import Certificate
from lmmfast.search.estimates import Estimates, parameter_units, theta_information
from lmmfast.search.evaluate import evaluate
from lmmfast.search.information import flat_directions, moved_by, without_negative_variances
from lmmfast.search.objective import Problem
from lmmfast.search.optimum import Optimum

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lmmfast.inference.marginal_means import MarginalMeans
    from lmmfast.likelihood.at_point import LikelihoodPoint
    from lmmfast.prediction.scorer import Scorer
    from lmmfast.report.summary import Summary
    from lmmfast.resampling.bootstrap import Bootstrap

T = TypeVar("T")

#: Numbers of second-order totals up to which a fit keeps them when it lets go of its data.
MAX_KEPT_TOTALS = 100_000


class LMMResult:
    """A fitted linear mixed model.

    Made by `lmmfast.lmm` and `lmmfast.fit`. Names follow statsmodels' MixedLM where it has them.
    It can be pickled: random effects stay, the data and the clusters do not.
    """

    def __init__(
        self,
        *,
        design: Design,
        clusters: Clusters,
        engine: Engine,
        basis: Basis,
        covariance: BlockCovariance,
        problem: Problem,
        optimum: Optimum,
        estimates: Estimates,
        certificate: Certificate,
    ) -> None:
        self.spec = design.spec
        self.terms = design.terms
        self.y_name, self.group_name = design.y_name, design.group_name
        self.nobs, self.n_dropped = design.n_obs, design.n_dropped
        self.missing_counts = design.missing_counts
        self._set_groups(clusters)
        self.weighted = basis.weighted
        self.engine, self.n_designs = engine.name, engine.n_designs
        self.method = "REML" if problem.reml else "ML"
        self.certificate = certificate
        self.trace = optimum.trace
        self._keep = problem.keep
        self.x_names = [design.x_names[j] for j in self._keep]
        self.dropped_columns = [n for n in design.x_names if n not in self.x_names]
        self.dropped_effects = list(design.dropped_effects)
        self._basis, self._covariance, self._estimates = basis, covariance, estimates
        self._phi, self._n_flat = optimum.phi, optimum.n_flat
        self._structure = design.residual
        self._residual_model: ResidualModel | None = None
        self._D, self._Lambda = optimum.D, optimum.Lambda
        self._unit = basis.y_scale * basis.y_scale * optimum.sigma2
        c = np.zeros(len(design.x_names) + 1)
        c[self._keep], c[-1] = -optimum.beta, 1.0
        self._c, self._problem = c, problem
        self._design: Design | None = design
        self._fingerprints: Fingerprints | None = Fingerprints(*design.held_columns())
        self._clusters: Clusters | None = clusters
        self._engine: Engine | None = engine

    #: Names of the fixed effects.
    x_names = HandedOut[list[str]]()
    #: Columns of X that others determine.
    dropped_columns = HandedOut[list[str]]()
    #: Columns of Z that are zero in all rows, ``name|group``: their effects are not estimated.
    dropped_effects = HandedOut[list[str]]()
    #: Columns with missing values, and how many.
    missing_counts = HandedOut[dict[str, int]]()
    #: For each grouping factor those that it is nested in, outermost first.
    nested_in = HandedOut[dict[str, list[str]]](deep=True)
    #: Evaluations of the search.
    trace = HandedOut[list[dict[str, Any]]](deep=True)

    #: Whether parameters that the data cannot tell apart are refused, or fitted with a warning.
    _identifiable: str = "raise"
    _n_flat: int = 0
    _redundancy: Redundancy | None = None
    #: How conclusions about the fixed effects are drawn: see `inference`.
    _method: Method = Method()

    def _note_redundancy(self) -> None:
        """Say in the certificate what is known of parameters that cannot be told apart."""
        J, directions = self._theta_jacobian, self._inverse_information[1]
        self._n_flat = len(directions)  # less than at the start where parameters are at an end
        if not self._n_flat:
            return
        self._redundancy = find_redundancy(self.theta_names, directions, J)
        status = f"{self.certificate.status}; {self._redundancy}"
        self.certificate = replace(self.certificate, status=status)

    def _set_groups(self, clusters: Clusters) -> None:
        """Keep names and sizes of the groups."""
        sizes = clusters.sizes
        self.ngroups: Any = clusters.m
        self.group_sizes: Any = int(sizes.min()), float(sizes.mean()), int(sizes.max())
        #: For each grouping factor the number of its groups, and their sizes.
        self._grouping = {self.group_name: (clusters.m, self.group_sizes)}
        self.nested_in = {self.group_name: []}

    # -- fixed effects ---------------------------------------------------------------------------

    @property
    def params(self) -> pd.Series[float]:
        """Fixed effects beta (p,), by name; columns dropped from X have none."""
        return self._series(self._estimates.beta)

    @property
    def bse(self) -> pd.Series[float]:
        """Standard errors of the fixed effects (p,)."""
        return self._series(np.sqrt(np.diag(self._cov_beta)))

    @property
    def tvalues(self) -> pd.Series[float]:
        """Estimates over their standard errors (p,)."""
        return self.params / self.bse

    @property
    def df(self) -> pd.Series[float]:
        """Degrees of freedom of the t statistics (p,): see `inference`."""
        return self._series(self._df)

    @property
    def pvalues(self) -> pd.Series[float]:
        """Two-sided p-values (p,) from the t distribution with ``df`` degrees of freedom."""
        return self._series(two_sided_p(self.tvalues.to_numpy(dtype=np.float64), self._df))

    def cov_params(self) -> pd.DataFrame:
        """Return the covariance matrix of the fixed effects (p, p).

        (X'V^-1 X)^-1, or what `inference` chose.
        """
        import pandas as pd

        return pd.DataFrame(self._cov_beta, index=self.x_names, columns=self.x_names, copy=True)

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Confidence intervals of the fixed effects, columns 0 and 1 (statsmodels').

        From the t distribution with ``df`` degrees of freedom.

        Parameters
        ----------
        alpha : float
            One minus the level.
        """
        return self.tidy(alpha)[["conf_low", "conf_high"]].set_axis([0, 1], axis=1)

    def tidy(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return one row per fixed effect: estimate, std_error, statistic, df, p_value, interval.

        Parameters
        ----------
        alpha : float
            One minus the level of the intervals.
        """
        return coefficient_table(self.params, self.bse, alpha, self._df)

    def inference(
        self,
        ddf: str = "satterthwaite",
        *,
        vcov: str = "model",
        information: str | None = None,
        cluster: Any = None,
    ) -> LMMResult:
        """Return this fit with conclusions about the fixed effects drawn in another way.

        ``bse``, ``tvalues``, ``df``, ``pvalues``, ``conf_int``, ``cov_params``, ``tidy``,
        ``summary`` and `test` of what is returned follow.

        Parameters
        ----------
        ddf : str
            Degrees of freedom:

            - "satterthwaite", the default of every fit (lmerTest, SAS DDFM=SATTERTHWAITE);
            - "kenward-roger": with standard errors that know that the variances are estimated
              (1997; pbkrtest, SAS DDFM=KENWARDROGER); by REML only;
            - "kenward-roger-linear": without second derivatives of V (SAS's FIRSTORDER), the same
              where V is linear in its parameters;
            - "between-within": subjects less columns constant within them, for these, and rows
              less subjects less the other columns for the others (SAS DDFM=BETWITHIN);
            - "inner-outer": those of the level at which a column varies (nlme);
            - "residual": n - p;
            - "normal": none, as z statistics (statsmodels).
        vcov : str
            Covariance matrix of the coefficients: "model", that of the method; or, right whatever
            the covariance within clusters is, "CR0" (SAS EMPIRICAL), "CR1", "CR1p", "CR1S", "CR2"
            or "CR3", as clubSandwich calls them, with Satterthwaite's degrees of freedom under the
            fitted model and tests by Hotelling's T² (HTZ). "CR2" has the principal root of
            (I - G_i M), mmrm's definition, which differs from clubSandwich's in the third digit
            where clusters differ; "CR2-clubsandwich" has theirs, and decomposes V of each cluster.
        information : {"observed", "expected"}, optional
            Of the variance parameters. Default: what the packages use that have these methods:
            observed for Satterthwaite (lmerTest, SAS), expected for Kenward and Roger's of random
            effects (pbkrtest), observed with a residual structure (SAS). Where a variance is zero
            or a correlation one, the expected information of all parameters is used: the observed
            one describes nothing there.
        cluster : array (n,), optional
            Clusters for robust variances, which contain whole groups: a value for each row used, or
            for each row of the data. Default: the outermost grouping factor.

        Returns
        -------
        LMMResult
            It shares all else with this fit, which stays as it is.

        Raises
        ------
        ValueError
            Unknown words.
        UnsupportedModelError
            Kenward and Roger's method by maximum likelihood. Robust variances with crossed factors
            and no ``cluster``.
        DataError
            Groups that are in several clusters, clusters of another length, a fit without data.

        References
        ----------
        Giesbrecht and Burns (1985), Biometrics 41, 477-486. Kenward and Roger (1997), Biometrics
        53, 983-997. Pustejovsky and Tipton (2018), Journal of Business & Economic Statistics 36,
        672-683.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())
        >>> fit.df.round(2).to_list()
        [25.0, 25.0, 25.0, 25.0]
        """
        view = self.__copy__()
        view._method = Method(ddf, information, vcov, cluster)
        for known in ("_denominators", "_df"):
            view.__dict__.pop(known, None)
        _ = view._cov_beta  # refused now, and not when a table is asked for
        return view

    def test(self, hypothesis: Any, *, alpha: float = 0.05) -> LinearTest:
        """Test linear hypotheses about the fixed effects.

        Parameters
        ----------
        hypothesis : str, mapping or array (k, p)
            ``"x1 = 0, x2 = x3"`` with names of coefficients; ``{"x1": 1, "x2": -1}``, one function
            by its weights; or a matrix L, of the hypothesis L beta = 0.
        alpha : float
            One minus the level of the intervals.

        Returns
        -------
        LinearTest
            The F test of all together, and each function by itself in its ``frame``.

        Raises
        ------
        DataError
            Unknown names, a matrix of another width, functions that depend on each other.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> print(round(fit.test("Days = 10").p_value, 4))
        0.7661
        """
        L, values = read_hypothesis(hypothesis, self.x_names)
        return linear_test(self._denominators, self._estimates.beta, L, values, alpha)

    t_test = wald_test = f_test = test

    def anova(self, type: int = 3) -> pd.DataFrame:
        """Test each term of the fixed effects.

        Parameters
        ----------
        type : {3, 1, 2}
            Hypotheses: 1, each term after those before it; 2, after all terms that do not contain
            it; 3, means over the cells of other factors with equal weights, whatever the coding.
            A term contains another that has some of its factors and the same covariates: ``a:x``
            contains ``x``, not ``a``.

        Returns
        -------
        DataFrame
            A row per term: ``df_num``, ``df_denom``, ``statistic`` (F), ``p_value``; degrees of
            freedom and covariance matrix as `inference` chose.

        Raises
        ------
        DataError
            A model fitted to arrays, or a fit that holds no rows (types 1 and 2).
        UnsupportedModelError
            Factors whose coding is not known; type 3 with columns of X dropped, or with a column
            coded in two ways.

        Notes
        -----
        Hypotheses and tests are those of lmerTest's ``anova`` and SAS PROC MIXED (type 3).

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())
        >>> fit.anova().round(3)
                 df_num  df_denom  statistic  p_value
        age           1      25.0     87.999    0.000
        Sex           1      25.0      0.418    0.524
        age:Sex       1      25.0      5.119    0.033
        """
        from lmmfast.inference.anova import anova

        return anova(self, type)

    def emmeans(
        self,
        specs: Any,
        by: Any = None,
        *,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        alpha: float = 0.05,
    ) -> MarginalMeans:
        """Estimate marginal means (least-squares means) of the levels of factors.

        Parameters
        ----------
        specs : str or list of str
            Columns whose levels, or values in ``at``, have a mean each.
        by : str or list of str, optional
            Further columns, within whose levels means are compared.
        at : mapping, optional
            Values of covariates, or some of the levels of factors. Default: all levels, and means
            of covariates over the rows.
        weights : {"equal", "proportional", "outer", "cells"}
            Of the levels that are averaged over.
        alpha : float
            One minus the level of the intervals.

        Returns
        -------
        MarginalMeans
            Its ``frame`` has a row for each mean, with standard errors and degrees of freedom as
            `inference` chose; ``pairs()``, ``contrast()`` and ``test()`` compare them. An offset
            is taken as zero.

        Raises
        ------
        DataError
            A model fitted to arrays, a fit that holds no rows, unknown columns.
        ValueError
            Unknown weights.

        Notes
        -----
        Where columns of X were dropped, means that need them are NaN: they are not estimable.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())
        >>> fit.emmeans("Sex").frame.round(2)[["Sex", "estimate", "std_error", "df"]]
              Sex  estimate  std_error    df
        0  Female     22.65       0.59  25.0
        1    Male     24.97       0.49  25.0
        """
        from lmmfast.inference.marginal_means import marginal_means

        return marginal_means(self, specs, by, at, weights, alpha)

    def emtrends(
        self,
        specs: Any,
        var: str,
        by: Any = None,
        *,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        alpha: float = 0.05,
    ) -> MarginalMeans:
        """Estimate marginal slopes by the covariate ``var``; the rest is as in `emmeans`."""
        from lmmfast.inference.marginal_means import marginal_means

        if not isinstance(var, str):
            raise DataError(f"var={var!r} must be the name of a covariate")
        return marginal_means(self, specs, by, at, weights, alpha, slope=var)

    def to_marginaleffects(self) -> Any:
        """Return this fit as a model of the package marginaleffects.

        Its ``predictions``, ``comparisons``, ``slopes`` and ``hypotheses`` take what is returned,
        at population level.

        Returns
        -------
        marginaleffects' ModelAbstract
            With the covariance matrix that `inference` chose (``vcov="CR2"`` there names another).
            marginaleffects takes one number of degrees of freedom for all rows of a table: the
            smallest of ``df``; those of each mean and slope are in `emmeans` and `emtrends`.

        Raises
        ------
        ImportError
            marginaleffects is not installed (``pip install 'lmmfast[marginaleffects]'``).
        DataError
            A model fitted to arrays, a fit that holds no rows.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())
        >>> model = fit.to_marginaleffects()  # doctest: +SKIP
        >>> marginaleffects.avg_slopes(model, variables="age", by="Sex")  # doctest: +SKIP
        """
        from lmmfast.inference.to_marginaleffects import to_marginaleffects

        return to_marginaleffects(self)

    def drop1(self) -> pd.DataFrame:
        """Test each term that is part of no other, given all others; as `anova`."""
        from lmmfast.inference.anova import drop1

        return drop1(self)

    def ranova(
        self, *, reduce_terms: bool = True, n_sim: int = 10_000, seed: Any = 1
    ) -> pd.DataFrame:
        """Test the random effects one term at a time, by likelihood ratios.

        Each row is a fit without something: a slope with its covariances, of ``(x | g)``; a term of
        one effect as a whole. The last row of several is the model without random effects. All are
        fitted by the method of this fit, from the beginning.

        Parameters
        ----------
        reduce_terms : bool
            False: only whole terms are left out.
        n_sim, seed
            As in `lmmfast.compare`: for mixtures of several variances.

        Returns
        -------
        DataFrame
            A row for this fit, then one for each reduced model: ``n_params``, ``llf``, ``aic``;
            ``chisq``, ``df``, ``p`` of the chi-squared distribution, which is conservative as
            variances of zero are at the end of their range; ``p_mixture`` of the mixture that takes
            this into account (``lmmfast.compare(test="mixture")``), NaN where it is not known;
            ``note``.

        Raises
        ------
        DataError
            A fit that holds no data, or that has no random effects.

        Notes
        -----
        Rows and chi-squared tests are those of lmerTest's ``ranova``: of ``(x + w | g)`` each slope
        is left out in turn and the intercept stays, ``(0 + f | g)`` of a factor f becomes
        ``(1 | g)``. Of uncorrelated effects ``(x || g)`` each is left out in turn, the intercept
        too; compound symmetry and ``identity()`` are left out whole.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> fit.ranova()[["llf", "chisq", "df"]].round(3)
                                      llf    chisq    df
        full model               -871.814      NaN  <NA>
        Days in (Days | Subject) -893.233   42.837     2
        all random effects       -946.832  150.035     3
        """
        from lmmfast.inference.ranova import ranova

        return ranova(self, reduce_terms, n_sim, seed)

    @cached_property
    def _inference_totals(self) -> InferenceTotals:
        """Derivatives that small-sample inference is made of."""
        return inference_totals(self, self._keeps_second_order)

    @property
    def _keeps_second_order(self) -> bool:
        """Whether second-order sums are few enough to be kept."""
        return len(self._estimates.theta) ** 2 * len(self.x_names) ** 2 <= MAX_KEPT_TOTALS

    @cached_property
    def _denominators(self) -> Denominators:
        """How conclusions are drawn."""
        return denominators(self, self._method)

    @property
    def _cov_beta(self) -> Array:
        """Covariance matrix of the fixed effects (p, p)."""
        return self._denominators.cov if self._method.adjusts_errors else self._estimates.cov_beta

    @cached_property
    def _df(self) -> Array:
        """Degrees of freedom of each coefficient (p,)."""
        return np.array([self._denominators.df(row) for row in np.eye(len(self.x_names))])

    # -- variance parameters ---------------------------------------------------------------------

    @property
    def scale(self) -> float:
        """Residual variance sigma2 (with weights: of a row of weight one).

        With a residual structure that of a row, or where there is a nugget of its measurement error
        alone, at the baseline: the first level of `ByGroup` and of other variances by level, v = 1
        of `VarPower`, v = 0 of `VarExp`. The first ``Residual`` of ``varcorr``.
        """
        return next(iter(self._residual_variances.values()))

    @property
    def _residual_variances(self) -> dict[str, float]:
        """Residual variances by name, the baseline first."""
        return self._covariance.residual_variances(self._estimates.sigma2, self._phi)

    @property
    def sigma(self) -> float:
        """Residual standard deviation, the root of ``scale``."""
        return float(np.sqrt(self.scale))

    @property
    def varcorr(self) -> VarCorr:
        """D per term, standard deviations, correlations, residual variance."""
        blocks = [self._estimates.D[c, c] for c in self._covariance.columns]
        return VarCorr(self.terms, blocks, self.scale, self._residual_variances)

    @property
    def cov_re(self) -> pd.DataFrame:
        """Covariance matrix D of all random effects of a group (q, q)."""
        import pandas as pd

        return pd.DataFrame(self._estimates.D, index=self.z_names, columns=self.z_names)

    @property
    def z_names(self) -> list[str]:
        """Names of the random effects of a group (q,)."""
        return [name for term in self.terms for name in term.names]

    @property
    def theta_names(self) -> list[str]:
        """Names of the natural variance parameters."""
        return [*natural_names(self.terms), *self._covariance.theta_tail_names()]

    @property
    def theta(self) -> pd.Series[float]:
        """Variance parameters on their natural scale: those of each term, then sigma2."""
        import pandas as pd

        return pd.Series(self._estimates.theta, index=self.theta_names, copy=True)

    @property
    def theta_cov(self) -> pd.DataFrame:
        """Inverse of the expected information for theta (REML: of the restricted likelihood).

        Of crossed factors with more than 2000 effects that of the average information.

        NaN for terms on the boundary, where it does not describe the uncertainty; the other
        parameters' entries then hold for those terms fixed. NaN too for parameters that the data
        cannot tell apart (``identifiable="warn"``).
        """
        import pandas as pd

        names = self.theta_names
        cov = self._propagated_cov(np.eye(len(names)))
        return pd.DataFrame(cov, index=names, columns=names)

    def _propagated_cov(self, weights: Array) -> Array:
        """Covariance matrix (k, k) of sums of theta with weights (k, n_theta)."""
        return self._cov_of(weights @ self._theta_jacobian)

    def _cov_of(self, J: Array) -> Array:
        """Covariance matrix (k, k) of what has the derivatives J by working parameters."""
        return _propagated(*self._inverse_information, J)

    @property
    def _theta_jacobian(self) -> Array:
        """Derivatives of theta by (natural parameters of D, kappa, sigma2)."""
        return self._covariance.theta_jacobian(self._estimates.sigma2, self._phi)

    @property
    def _working_cov(self) -> Array:
        """Covariance matrix of (natural parameters of D, kappa, sigma2); NaN where unknown."""
        cov, lost = self._inverse_information
        return _propagated(cov, lost, np.eye(len(cov)))

    @cached_property
    def _inverse_information(self) -> tuple[Array, Array]:
        """Covariance matrix of (natural parameters of D, kappa, sigma2); NaN on the boundary.

        And the directions (n_lost, k) of which there is no information, and nothing in it.
        """
        info = self._expected_information
        free = np.append(self._covariance.free(self._phi), True)
        ranks = self.certificate.rank.values()
        for params, (rank, q) in zip(self._covariance.params, ranks, strict=True):
            free[params] = rank == q
        if not self._n_flat:
            free &= np.diag(info) > 0  # not so the range of spheres that reach no row, for instance
        known = info[np.ix_(free, free)]
        if not free.any():  # rounding leaves nothing of it where sigma2 is tiny beside D
            return np.full(info.shape, np.nan), np.zeros((0, len(info)))
        if not np.isfinite(known).all():
            raise DataError(
                f"standard errors of theta exceed the range of double precision: divide "
                f"{self.y_name!r} by a power of ten"
            )
        found, inverse = self._flat_directions(known, free)
        cov, lost = np.full(info.shape, np.nan), np.zeros((len(found), len(info)))
        cov[np.ix_(free, free)], lost[:, free] = inverse, found
        if self._n_flat and not free.all() and np.isfinite(info).all():
            everything = np.ones(len(info), dtype=bool)  # of the terms on the boundary too
            lost = self._flat_directions(info, everything)[0]
        return cov, lost

    @property
    def _expected_information(self) -> Array:
        """Expected information for (natural parameters of D, kappa, sigma2)."""
        known = self.__dict__.get("_inference_totals")
        if known is not None:
            return np.asarray(known.expected)
        engine = self._need(self._engine, "the information of theta")
        average = engine.traits.average_information
        second_order = self._problem.reml or average
        evaluation = evaluate(self._problem, engine, self._Lambda, second_order)
        with np.errstate(all="ignore"):
            return theta_information(
                evaluation, self._basis, self._covariance, self._D, self._estimates.D
            )

    def _flat_directions(self, info: Array, free: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Directions of which there is no information, and the inverse along the others."""
        if not self._n_flat:
            return flat_directions(info)
        covariance = self._covariance
        if not free[covariance.n_random :].all():  # theta is at an end of its range
            return flat_directions(info, self._n_flat, np.ones(len(info)))
        J = self._theta_jacobian[np.ix_(free, free)]
        working_sigma2 = self._unit / self._basis.y_scale**2
        units = parameter_units(self._basis, covariance, working_sigma2, self._estimates.D)
        return flat_directions(info, self._n_flat, units[free], J)

    @property
    def theta_se(self) -> pd.Series[float]:
        """Standard errors of theta."""
        import pandas as pd

        return pd.Series(np.sqrt(np.diag(self.theta_cov)), index=self.theta_names)

    def variance_table(self, alpha: float = 0.05, *, information: str = "expected") -> pd.DataFrame:
        """Return one row per variance parameter: estimate, std_error, conf_low, conf_high.

        Intervals are Wald's on a scale on which the parameter is free (logarithm of a variance or a
        range, atanh of a correlation), transformed back; those of covariances are symmetric. With a
        range or a rho of time the table has rows for the range and the half-life too; where the
        data cannot tell parameters apart, for the sums that they tell (``identifiable="warn"``).

        Parameters
        ----------
        alpha : float
            One minus the level of the intervals.
        information : {"expected", "observed"}
            Of the variance parameters; observed as in SAS's COVTEST, nlme and `conf_int_theta`,
            where there is one: not on the boundary.
        """
        from lmmfast.inference.variance_table import variance_table

        return variance_table(self, alpha, information)

    def conf_int_theta(
        self,
        alpha: float = 0.05,
        *,
        method: str = "wald",
        information: str = "observed",
        B: int = 1000,
        seed: Any = 1,
    ) -> pd.DataFrame:
        """Return intervals of the variance parameters, standard deviations and correlations.

        Parameters
        ----------
        alpha : float
            One minus the level.
        method : {"wald", "bootstrap"}
            On the scales of logarithms of variances and standard deviations and Fisher's z of
            correlations, transformed back; or percentiles of replicates, see `bootstrap`, which
            hold on the boundary too.
        information : {"observed", "expected"}
            Of the variance parameters. Observed is what nlme and SAS use. Where a term lies on the
            boundary, and with more than 2000 crossed effects, there is only the other (of crossed
            effects the average information).
        B, seed
            Number of replicates of the bootstrap, and their seed.

        Returns
        -------
        DataFrame
            ``estimate``, ``std_error``, ``conf_low``, ``conf_high``: ``sd(…)`` and ``cor(…)`` of
            the random effects, then the parameters of ``theta``. NaN for terms on the boundary.

        Raises
        ------
        ValueError
            Unknown words, or an alpha that is not between 0 and 0.5.
        DataError
            A fit that holds no data.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> fit.conf_int_theta().round(2).head(3)
                                     estimate  std_error  conf_low  conf_high
        sd(Intercept|Subject)           24.74       5.84     15.58      39.28
        sd(Days|Subject)                 5.92       1.25      3.92       8.95
        cor(Intercept,Days|Subject)      0.07       0.33     -0.52       0.61
        """
        from lmmfast.inference.theta_intervals import theta_intervals

        return theta_intervals(self, alpha, method, information, B, seed)

    @property
    def identified_sums(self) -> pd.DataFrame:
        """Sums of variance parameters that are known where the parts are not, as `variance_table`.

        Of a fit with ``identifiable="warn"``; else without rows.
        """
        import pandas as pd

        if self._redundancy is None:
            return pd.DataFrame(columns=["estimate", "std_error", "conf_low", "conf_high"])
        return self.variance_table().tail(len(self._redundancy.names))

    def variance_partition(self) -> pd.DataFrame:
        """Return how the variance of the response divides among grouping factors and residuals.

        Returns
        -------
        DataFrame
            A row for each grouping factor, then ``Residual``: ``variance``, the mean over the rows
            of the fit of z' D_f z (of the residuals: of their variances, sigma2 / w); ``share`` of
            the sum, the variance of a row about its fixed effects; ``icc``, the intraclass
            correlation: of two rows that share the level of this factor (and of those that it is
            nested in) and no other, so far as random effects make it.

        Raises
        ------
        DataError
            A fit that holds no rows.

        Notes
        -----
        With random slopes the variance changes with their columns, and these are means over the
        rows: Johnson (2014), Methods in Ecology and Evolution 5, 944-946. A residual structure is
        part of ``Residual``, whatever correlation it has.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff())
        >>> fit.variance_partition().round(3)
                  variance  share    icc
        Batch      1764.05  0.418  0.418
        Residual   2451.25  0.582    NaN
        """
        from lmmfast.inference.partition import variance_partition

        return variance_partition(self)

    def icc(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return the intraclass correlations, with intervals.

        Parameters
        ----------
        alpha : float
            One minus the level of the intervals.

        Returns
        -------
        DataFrame
            A row for each grouping factor: ``estimate``, as in `variance_partition`, that of two
            rows that share the level of this factor and of those that it is nested in;
            ``std_error``, ``conf_low``, ``conf_high``: Wald's on the scale of logits, from the
            observed information. NaN on the boundary.

        Raises
        ------
        DataError
            A fit that holds no rows.

        Examples
        --------
        >>> import lmmfast as lf
        >>> lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff()).icc().round(3)
                estimate  std_error  conf_low  conf_high
        factor
        Batch      0.418      0.216     0.112      0.804
        """
        from lmmfast.diagnostics.explained import icc

        return icc(self, alpha)

    def r2(self) -> pd.Series[float]:
        """Return Nakagawa and Schielzeth's R2 with Johnson's extension to random slopes.

        Returns
        -------
        Series
            ``marginal``, the variance of X beta over the rows (divisor n - 1) as a share of itself,
            the mean variance of the random effects and that of the residuals; ``conditional``, the
            share of fixed and random effects together. A residual structure counts as residual, an
            offset not at all.

        Raises
        ------
        DataError
            A fit that holds no rows.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> fit.r2().round(3).to_dict()
        {'marginal': 0.279, 'conditional': 0.799}
        """
        from lmmfast.diagnostics.explained import r2

        return r2(self)

    @cached_property
    def _mean_variances(self) -> dict[str, float]:
        """Mean variance of a row by grouping factor, then that of its residual."""
        from lmmfast.inference.partition import mean_variances

        return mean_variances(self)

    # -- residual structure ----------------------------------------------------------------------

    @property
    def residual(self) -> ResidualStructure:
        """Covariance structure of the residuals."""
        return Independent() if self._structure is None else self._structure

    def implied_covariance(self, group: Any = None, at: Any = None) -> pd.DataFrame:
        """Return V = Z D Z' + R at the estimates, for the rows of a cluster or for others.

        Parameters
        ----------
        group : optional
            Label of a cluster; default: the first of the largest. Of several grouping factors a
            level of the outermost, or ``{factor: level}``.
        at : sequence or table, optional
            Visits or times of rows that need not be in the data (dates: days since the first one),
            or a table with all columns that the covariance depends on. Columns that it does not
            have are as in the cluster, where they must be constant; weights are one.

        Returns
        -------
        DataFrame (n_i, n_i)
            Indexed by visit, time or coordinates; by the column of a random slope, or by the
            number of the row, where residuals are independent.

        Raises
        ------
        DataError
            Unknown group or level, columns that ``at`` lacks, more than 5000 rows.
        UnsupportedModelError
            Several grouping factors, and ``at`` for a level that is not one of the innermost.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> fit.implied_covariance(at=[0, 9]).round(0).to_numpy().tolist()
        [[1267.0, 699.0], [699.0, 4281.0]]
        """
        from lmmfast.implied.implied import implied_covariance

        self._check_data(response=False)
        return implied_covariance(self, group, at)

    def acf(
        self,
        along: Any = None,
        *,
        kind: LagKind = "correlation",
        residuals: LagResiduals = "marginal",
        max_lag: float | None = None,
        bins: int | None = None,
        within: str | None = None,
    ) -> pd.DataFrame:
        """Return the autocorrelation of the residuals within clusters, and that of the model.

        Parameters
        ----------
        along : str or array (n,), optional
            What lags are differences of: a column of the model, or values for the rows used.
            Default: visits, times or coordinates of the residual structure; else the column of the
            random slope, if there is one; else the order of the rows.
        kind : {"correlation", "semivariogram"}
            Of pairs of residuals e, f at one lag: sum of e f over sum of (e^2 + f^2) / 2, or mean
            of (e - f)^2 / 2.
        residuals : {"marginal", "normalized"}
            y - X beta over the standard deviations that the model implies; or, to see what the
            model leaves, these whitened by V, which have no correlation if the model holds.
        max_lag : float, optional
            Default: all lags between visits; ten steps or more (as R's acf: 10 log10 n) along a
            time, three times the fitted range at least.
        bins : int, optional
            Number of intervals of the lag; default 15. Few distinct lags have one each.
        within : str, optional
            Of several grouping factors the one within whose levels pairs of rows are taken;
            default: the innermost, of crossed ones that with the most levels.

        Returns
        -------
        DataFrame
            A row per lag: its mean ``lag``, ``pairs`` of rows, ``empirical``, ``std_error`` (from
            the variation between clusters, of nested factors between levels of the outermost; NaN
            for fewer than ten, and for crossed factors), ``fitted``: the mean over the
            same pairs of what V implies, random effects included.

        Notes
        -----
        Residuals are divided by their root mean square. Those of an estimated mean are a little
        less correlated than the errors, noticeably so where clusters are few. Of more than four
        million pairs about that many are used, evenly chosen.
        """
        from lmmfast.implied.autocorrelation import acf

        self._check_data()
        return acf(self, along, kind, residuals, max_lag, bins, within)

    def plot_covariance(self, group: Any = None, at: Any = None, **options: Any) -> Axes:
        """Draw the correlations or covariances of V as a heatmap.

        Parameters
        ----------
        group, at
            As in `implied_covariance`; a cluster of more than 200 rows is shown by 200 of them.
        **options
            See `lmmfast.plots.covariance.plot_covariance`.

        Returns
        -------
        matplotlib Axes
        """
        from lmmfast.plots.covariance import plot_covariance

        return plot_covariance(self, group, at, **options)

    def plot_acf(self, along: Any = None, **options: Any) -> Axes:
        """Draw the autocorrelation of the residuals by lag against that of the model.

        Parameters
        ----------
        along
            As in `acf`.
        **options
            See `lmmfast.plots.covariance.plot_acf`.

        Returns
        -------
        matplotlib Axes
        """
        from lmmfast.plots.covariance import plot_acf

        return plot_acf(self, along, **options)

    # -- likelihood ------------------------------------------------------------------------------

    @property
    def llf(self) -> float:
        """Log-likelihood, or restricted log-likelihood, with all constants (as lme4 and nlme)."""
        return self._estimates.loglik

    @property
    def deviance(self) -> float:
        """Return -2 llf; for REML the REML criterion."""
        return -2 * self.llf

    @property
    def n_params(self) -> int:
        """Fixed effects plus variance parameters, less those that the data cannot tell apart."""
        return len(self.x_names) + len(self._estimates.theta) - self._n_flat

    @property
    def aic(self) -> float:
        """Return -2 llf + 2 n_params."""
        return self.deviance + 2 * self.n_params

    @property
    def bic(self) -> float:
        """Return -2 llf + n_params log(nobs), as lme4."""
        return self.deviance + self.n_params * float(np.log(self.nobs))

    @property
    def hat_trace(self) -> float:
        """Trace of the matrix that takes y to ``fittedvalues``: parameters that these use.

        Between p, where the random effects have no variance, and p plus the number of random
        effects that the data can tell from each other and from the fixed ones.
        """
        from lmmfast.diagnostics.conditional import hat_trace

        return hat_trace(self)

    @property
    def caic(self) -> float:
        """Conditional AIC: -2 log density of y given the predicted random effects, plus penalty.

        2 (``hat_trace`` + number of residual parameters), as Vaida and Blanchard (2005), Biometrika
        92, 351-370: for predictions about the same groups. That D is estimated is not counted,
        which favours random effects a little (Greven and Kneib 2010, Biometrika 97, 773-789). A
        process that ``fittedvalues`` have in them counts as random effects.
        """
        from lmmfast.diagnostics.conditional import caic

        return caic(self)

    @property
    def df_resid(self) -> int:
        """Rows less fixed effects."""
        return self.nobs - len(self.x_names)

    @property
    def converged(self) -> bool:
        """Whether the certificate says so."""
        return self.certificate.converged

    @cached_property
    def _response_sum(self) -> int | None:
        """Checksum of the response, by which `lmmfast.compare` knows fits to the same rows."""
        from lmmfast.inference.comparison import response_sum

        with contextlib.suppress(DataError):  # a fit with appended rows holds none
            self._check_data()
            return None if self._design is None else response_sum(self._design)
        return None

    def at(self, theta: Any = None, beta: Any = None) -> LikelihoodPoint:
        """Evaluate the likelihood of this model for these data at any parameters.

        Parameters
        ----------
        theta : array (n_theta,), mapping or Series, optional
            Variance parameters in the order of ``theta``, or by name. Default: the estimates.
        beta : array (p,), mapping or Series, optional
            Coefficients, by maximum likelihood. Default: their estimate at theta.

        Returns
        -------
        LikelihoodPoint
            ``llf``, ``score``, ``information("expected" | "observed")`` of beta and theta,
            ``V(group)``.

        Raises
        ------
        DataError
            Parameters out of their range, another number of them, a fit that holds no data.
        UnsupportedModelError
            ``beta`` of a restricted likelihood, which is free of it.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff(), reml=False)
        >>> here = fit.at({"var(Intercept|Batch)": 1000.0, "var(Residual)": 2500.0})
        >>> round(here.llf, 4)
        -163.7478
        >>> print(here.score.round(6).to_string())
        Intercept              -0.000000
        var(Intercept|Batch)    0.000505
        var(Residual)           0.000007
        """
        from lmmfast.likelihood.at_point import at_point

        return at_point(self, self.theta if theta is None else theta, beta)

    def simulate(self, n: int = 1, seed: Any = None, *, conditional: bool = False) -> Array:
        """Draw responses from the fitted model, for the rows used.

        Parameters
        ----------
        n : int
            Number of responses.
        seed : int, Generator or None
            As of ``numpy.random.default_rng``; the same seed gives the same responses.
        conditional : bool
            With the predicted random effects rather than new ones.

        Returns
        -------
        ndarray (nobs, n)
            In the order of the rows used: what `refit` takes a column of, and `lmmfast.fit_many`
            all of. Offsets are part of it.

        Raises
        ------
        DataError
            A fit that holds no data, ``n`` that is no positive whole number.
        TooLargeError
            More numbers than memory is for; with a correlation of the residuals more than 5000
            rows of a cluster.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff())
        >>> y = fit.simulate(seed=1)
        >>> fit.refit(y[:, 0]).nobs
        30
        """
        from lmmfast.likelihood.simulate import simulate

        return simulate(self, n, seed, conditional)

    def bootstrap(
        self,
        B: int = 1000,
        statistic: Callable[[Any], Any] | None = None,
        *,
        seed: Any = None,
        method: str = "auto",
    ) -> Bootstrap:
        """Draw responses from the fitted model and fit each: the parametric bootstrap.

        Parameters
        ----------
        B : int
            Number of replicates; ``.more(B)`` of the result adds others.
        statistic : callable, optional
            What is wanted of a fit: a function that gives a number, a sequence, a mapping or a
            Series. Replicates from moments are `ResponseFit`, with ``params``, ``bse``, ``theta``,
            ``varcorr``, ``cov_re``, ``sigma``, ``llf``; with ``method="rows"`` they are fits like
            this one. Default: coefficients, standard deviations and correlations of the random
            effects, and ``theta``.
        seed : int, Generator or None
            The same seed gives the same replicates, on any number of threads.
        method : {"auto", "moments", "rows"}
            From what is kept of the data, without rows (one grouping factor, independent
            residuals), or by simulated rows and `refit`. The law is the same, the numbers are not.

        Returns
        -------
        Bootstrap
            ``se``, ``bias``, ``conf_int(kind="percentile" | "basic" | "normal")``, ``table()`` with
            Monte Carlo errors, ``to_frame()``, ``more(B)``.

        Raises
        ------
        DataError
            A fit that holds no data, a B or a seed that is none, a statistic that gives no numbers.
        ConvergenceError
            This fit has not converged.
        UnsupportedModelError
            ``method="moments"`` of a model that has none.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> fit.bootstrap(200, seed=1).B
        200
        """
        from lmmfast.resampling.bootstrap import bootstrap

        return bootstrap(self, B, statistic, seed, method)

    # -- random effects --------------------------------------------------------------------------

    @cached_property
    def _effects(self) -> Array:
        """Predictions of the random effects (m, q), groups in sorted order."""
        engine = self._need(self._engine, "the random effects")
        clusters = self._need(self._clusters, "the random effects")
        root = self._basis.y_scale * self._basis.z_map() @ self._Lambda
        b = engine.random_effects(self._Lambda, root, self._c)
        check_scales(self._need(self._design, "the random effects"), b, "the random effects")
        return clusters.reported(b)

    @property
    def group_labels(self) -> Array:
        """Groups in sorted order (m,)."""
        return np.array(self._group_labels)

    @cached_property
    def _group_labels(self) -> Array:
        clusters = self._need(self._clusters, "the groups")
        return clusters.reported(np.asarray(clusters.labels))

    @property
    def random_effects(self) -> pd.DataFrame:
        """Predictions (BLUPs) of the random effects, a row per group, a column per effect."""
        import pandas as pd

        index = pd.Index(np.asarray(self._group_labels), name=self.group_name)
        return pd.DataFrame(self._effects, index=index, columns=self.z_names, copy=True)

    @property
    def random_effects_cov(self) -> Array:
        """Var(b_i | y) at the estimates, (m, q, q), in the order of ``random_effects``.

        The uncertainty of beta is not included (as lme4's ``condVar``).
        """
        engine = self._need(self._engine, "the covariances of the random effects")
        clusters = self._need(self._clusters, "the covariances of the random effects")
        root = np.sqrt(self._unit) * self._basis.z_map() @ self._Lambda
        found = engine.random_effects_cov(self._Lambda, root)
        return clusters.reported(without_negative_variances(found))

    # -- fitted values and predictions -----------------------------------------------------------

    def _factors_at(self, level: str) -> list[int]:
        """Grouping factors whose effects belong to a level of prediction."""
        check_choice("level", level, prediction.LEVELS)
        return [0] if level == "conditional" else []

    @cached_property
    def _factor_effects(self) -> list[FactorEffects]:
        """Effects of each grouping factor."""
        columns = np.arange(len(self.z_names))
        return [FactorEffects(self.group_name, columns, self._effects, self._group_labels)]

    @property
    def _level_codes(self) -> list[NDArray[np.intp]]:
        """By factor, the position among its effects of the group of each row used, (n,)."""
        clusters = self._need(self._clusters, "fitted values")
        positions = clusters.stored(np.arange(clusters.m))
        return [np.asarray(clusters.spread(positions, slice(0, self.nobs)), dtype=np.intp)]

    def _row_effects(self, level: str) -> Callable[[list[Array], Rows], Array]:
        """Z b of rows of the fit, of the factors that belong to a level."""
        clusters = self._need(self._clusters, "fitted values")
        b = clusters.stored(self._effects)

        def effects(Z: list[Array], rows: Rows) -> Array:
            total = np.zeros(n_of(rows))
            for k, z in enumerate(Z):
                total += z * clusters.spread(b[:, k], rows)
            return total

        return effects

    @property
    def _innermost(self) -> str:
        """Grouping factor within whose levels a residual structure holds."""
        return max(self.nested_in, key=lambda name: len(self.nested_in[name]))

    @cached_property
    def _known_columns(self) -> dict[str, KnownColumn]:
        """What new rows are placed by in the residual structure."""
        design = self._need(self._design, "new rows of a residual structure")
        return known_columns(self.residual, design.residual_columns)

    def _whitened(self) -> Array:
        """L^-1 (y - X beta) with V = L L', (n,)."""
        return prediction.normalized(self)

    # -- which rows go together ------------------------------------------------------------------

    def _row_order(self) -> NDArray[np.intp]:
        """Rows used (n,), those of a group together."""
        return implied.row_order(self)

    def _find_group(self, group: Any, at: bool) -> implied.Group:
        """Find the group of which V is asked for, of its own rows or (``at``) of others."""
        return implied.find_group(self, group)

    def _row_labels(self, places: NDArray[np.intp]) -> pd.Index[Any]:
        """Labels of rows at places of `_row_order`."""
        return implied.row_labels(self, places)

    def _implied(self, group: implied.Group) -> Array:
        """V of the rows of a group."""
        return implied.V(self, implied.rows_at(self, group.places, group.cluster))

    def _grouped_rows(self, within: str | None) -> implied.GroupedRows:
        """Groups within which pairs of rows are looked at."""
        check_choice("within", within or self.group_name, (self.group_name,))
        return implied.grouped_rows(self)

    def _factor_columns(
        self, rows: NDArray[np.intp]
    ) -> list[tuple[NDArray[np.intp], NDArray[np.int64] | None]]:
        """Columns of Z of each factor, and the levels of some rows; None: all the same."""
        return [(np.arange(len(self.z_names)), None)]

    @property
    def fittedvalues(self) -> Array | pd.Series[float]:
        """X beta + Z b, and a process if there is one, for the rows used: see `fitted`."""
        return prediction.fitted(self, "conditional")

    def fitted(self, level: str = "conditional") -> Array | pd.Series[float]:
        """Fitted values of the rows used; with ``missing="exclude"`` NaN for those left out.

        Parameters
        ----------
        level : {"conditional", "population"}
            With or without the random effects; of several grouping factors also the name of one,
            or a list of names: with its effects and those of the factors that it is nested in.

        Notes
        -----
        Where the residual structure has a nugget it is the sum of a process and of measurement
        errors, and the expected process given all rows of its group is part of conditional values:
        y less these estimates the measurement errors alone.

        Examples
        --------
        >>> import lmmfast as lf
        >>> d = lf.datasets.sleepstudy()
        >>> fit = lf.lmm("Reaction ~ Days + (1 | Subject)", d, residual=lf.OU("Days", nugget=True))
        >>> fit.fitted()[:4].round(1).to_list()
        [250.2, 258.5, 265.7, 317.2]
        >>> fit.predict(d[:4], "conditional", residual="none").round(1).to_list()
        [270.2, 280.6, 291.1, 301.5]
        """
        return prediction.fitted(self, level)

    @property
    def resid(self) -> Array | pd.Series[float]:
        """Y less ``fittedvalues`` for the rows used; other kinds: `residuals`."""
        return self.residuals()

    def residuals(
        self, kind: ResidualKind = "response", level: str | None = None
    ) -> Array | pd.Series[float]:
        """Residuals of the rows used; with ``missing="exclude"`` NaN for those left out.

        Parameters
        ----------
        kind : {"response", "pearson", "studentized", "normalized"}
            y less fitted values; the same over its standard deviation at known parameters
            (conditional: that of the residual, sigma / sqrt(w) without a structure, of measurement
            errors alone where fitted values have a process in them; at level "population": the root
            of V_ii), or over its standard deviation with beta and the effects estimated (internally
            studentized); or, with V_i = L_i L_i', L^-1 (y - X beta) (marginal: at level
            "population").
        level : {"conditional", "population"}, optional
            Default: "population" for normalized residuals, else "conditional"; as in `fitted`.

        Returns
        -------
        ndarray or Series (n,)
            Studentized residuals are NaN in rows that are fitted exactly, whatever y is.

        Raises
        ------
        DataError
            A fit that holds no data.
        TooLargeError
            Normalized residuals of several grouping factors, and studentized conditional ones with
            a residual structure, where more than 20,000 rows hang together by their groups.

        Notes
        -----
        Pearson, studentized and normalized residuals are SAS PROC MIXED's PearsonResid,
        StudentResid and ScaledResid. Normalized residuals depend on the order of a group's rows:
        it is that of the data, with a residual structure that of the times.
        """
        from lmmfast.diagnostics.residuals import residuals

        return residuals(self, kind, level)

    def influence(
        self, by: str | None = None, *, theta: bool = True, refit: int | Literal["auto"] = "auto"
    ) -> pd.DataFrame:
        """Measure what leaving out each group, or each row, does to the estimates.

        Parameters
        ----------
        by : str, optional
            "row", or a grouping factor. Default: the grouping factor, of nested ones the outermost;
            crossed ones have no default.
        theta : bool
            Whether the variance parameters change, too: by one step of Fisher's scoring without
            the group, and beta with them to first order. Rows, and levels of a factor that is
            crossed or nested in another, are left out at fixed variance parameters.
        refit : int or "auto"
            Groups or rows without which the model is fitted anew: as many as this, the most
            influential ones; "auto": those that move a variance parameter by more than 0.3 of its
            standard errors, at most 50.

        Returns
        -------
        DataFrame
            A row for each group: ``rows``; ``leverage``, its part of the trace p of
            X (X'V^-1 X)^-1 X'V^-1; ``cooks_d``, (beta - beta_(i))'X'V^-1 X (beta - beta_(i)) / p;
            ``covratio``, the determinant of the covariance matrix of beta without the group over
            that with it; ``dfb_…`` (DFBETAS), beta - beta_(i) over the standard error without the
            group; ``theta_d`` and ``dft_…``, the same of the variance parameters in units of the
            standard errors with it; ``refitted``. NaN where a coefficient has no estimate without
            the group.

        Raises
        ------
        DataError
            A fit that holds no data, unknown words.
        UnsupportedModelError
            Crossed factors and no ``by``.
        TooLargeError
            With a residual structure or several factors, more than 20,000 rows that hang together.

        Warns
        -----
        ConvergenceWarning
            A model could not be fitted without a group.

        Notes
        -----
        One step is exact where the other groups are balanced; of the few groups that move theta far
        it is off by up to a quarter of what it moves, which is why these are refitted. On the
        boundary parameters of the term are held.

        References
        ----------
        Christensen, Pearson and Johnson (1992), Technometrics 34, 38-45. Banerjee and Frees (1997),
        Journal of the American Statistical Association 92, 999-1005.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> fit.influence()["cooks_d"].nlargest(2).round(3).to_dict()
        {'S309': 0.149, 'S335': 0.129}
        """
        from lmmfast.diagnostics.influence import influence

        return influence(self, by, theta, refit)

    @overload
    def predict(
        self,
        newdata: Any = None,
        level: str = "population",
        new_levels: NewLevels = "population",
        *,
        groups: Any = None,
        Z: Any = None,
        offset: Any = None,
        weights: Any = None,
        at: Any = None,
        residual: ResidualPart = "process",
        given: Any = None,
    ) -> Array | pd.Series[float]: ...

    @overload
    def predict(
        self,
        newdata: Any = None,
        level: str = "population",
        new_levels: NewLevels = "population",
        *,
        groups: Any = None,
        Z: Any = None,
        offset: Any = None,
        weights: Any = None,
        at: Any = None,
        residual: ResidualPart = "process",
        interval: Interval | None = None,
        se: bool = False,
        alpha: float = 0.05,
        uncertainty: Uncertainty = "beta",
        given: Any = None,
    ) -> Any: ...

    def predict(
        self,
        newdata: Any = None,
        level: str = "population",
        new_levels: NewLevels = "population",
        *,
        groups: Any = None,
        Z: Any = None,
        offset: Any = None,
        weights: Any = None,
        at: Any = None,
        residual: ResidualPart = "process",
        interval: Interval | None = None,
        se: bool = False,
        alpha: float = 0.05,
        uncertainty: Uncertainty = "beta",
        given: Any = None,
    ) -> Any:
        """Predict the response for new rows.

        Parameters
        ----------
        newdata : table, or array (n, p) for models fitted to arrays; optional
            Default: the rows of the fit.
        level : {"population", "conditional"}
            X beta, or X beta + Z b with the predicted effects of each row's group, and see
            ``residual``. Of several grouping factors also the name of one, or a list of names: with
            its effects and those of the factors that it is nested in.
        new_levels : {"population", "missing", "error"}
            What to do with groups that the fit did not have: predict their population value and
            warn with their number, return NaN, or raise.
        groups, Z : array, optional
            For models fitted to arrays, with random effects; of several grouping factors as in
            `lmmfast.fit`.
        offset : array (n,) or str, optional
            Replaces the offset column; a name is that of another column of ``newdata``. Where the
            fit had an array there is none by default, with a warning.
        weights : array (n,) or str, optional
            Weights of new rows, which variances of residuals are divided by: for a process, errors
            and new observations. Default: the weights column of the fit where ``newdata`` has it,
            else one, with a warning.
        at : table, optional
            Columns of the residual structure that ``newdata`` does not have: for models fitted to
            arrays, and structures given as arrays, whose columns are called as in ``theta``.
        residual : {"process", "errors", "none"}
            What is known of the residuals from other rows of the group, in conditional predictions.
            "process": where the structure has a nugget, the expected process at the times of the
            new rows, as in `fitted`; without a nugget nothing (as nlme). "errors": where the
            structure has no nugget, the expected error of a new row given those of the rows of its
            group, as SAS's OUTP for missing rows and mmrm; at a time or visit that the fit has, the
            observed response. "none": the random effects alone.
        interval : {"confidence", "prediction"}, optional
            Intervals for what is predicted, or for a new observation of it: with the variance of
            its residual, and of effects that are not part of the level, as of a new group.
        se : bool
            Standard errors alone.
        alpha : float
            One minus the level of the intervals.
        uncertainty : {"beta", "theta"}
            Of what standard errors know: of the estimate of beta, and of the effects given theta;
            or of that of the variance parameters as well.
        given : table, optional
            Rows with a response of groups that the fit does not have, or no longer has the rows of:
            predictions of these groups are conditional on them, under the parameters of the fit,
            whatever ``level`` is. Of a group that the fit has these are all rows that are looked
            at. For models fitted to arrays a dict: ``y``, ``X``, ``groups`` and, as needed, ``Z``,
            ``offset``, ``weights``, ``at``.

        Returns
        -------
        ndarray or Series (n,), or DataFrame
            A Series with the index of ``newdata`` if that is a pandas frame. NaN in rows with a
            missing value, at level "conditional" also in rows without a group. With ``se`` or
            ``interval`` a frame: ``estimate``, ``std_error`` (with ``interval="prediction"`` of a
            new observation), ``df``, ``conf_low``, ``conf_high``.

        Raises
        ------
        DataError
            Unknown column, unseen level of a factor, unknown group if ``new_levels="error"``; of a
            fit that holds no rows a process or errors, and standard errors of known groups.
        UnsupportedModelError
            ``residual="errors"`` of residuals without correlation, or with a nugget. Standard
            errors of random effects with robust variances; ``uncertainty="theta"`` of a new
            observation whose error is correlated with those of its group, but left out.
        TooLargeError
            Standard errors where a group with a residual structure has more than 5000 rows, or of
            several grouping factors with more than 500,000 rows that hang together or 5000 crossed
            effects.

        Notes
        -----
        With c the covariances of what is predicted with the response, v its variance beside X beta,
        w = V^-1 c, a = x - X'w and C the covariance matrix of beta, the squared standard error is
        v - w'c + a'C a: lme4's models by Henderson's equations, SAS's OUTP and OUTPM. The
        uncertainty of theta adds twice the variance that predictions have because theta is
        estimated (Kackar and Harville 1984; Prasad and Rao 1990), of X beta Kenward and Roger's
        linear adjustment. SAS's DDFM=KR adds the same less a part of it, about 1 %: what the
        estimate of beta takes away of the term that it shares with the weights.

        Degrees of freedom are Satterthwaite's, of the whole of it: those of `test` for X beta.
        Views by other methods have theirs of x'beta; Kenward and Roger's has its C.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> new = {"Days": [10.0], "Subject": ["S308"]}
        >>> fit.predict(new, "conditional", interval="prediction").round(1)
           estimate  std_error     df  conf_low  conf_high
        0     450.3       30.1  157.5     390.9      509.8
        """
        inputs = Inputs(groups, Z, offset, weights, at)
        wanted = prediction.Wanted(interval, se, alpha, uncertainty)
        return prediction.predict(self, newdata, level, new_levels, inputs, residual, wanted, given)

    def model_matrix(self, newdata: Any = None) -> pd.DataFrame:
        """Return the columns X of the fixed effects, a row for each row of the data.

        Parameters
        ----------
        newdata : table, or array (n, p) for models fitted to arrays; optional
            With the columns that the fixed effects use. Default: the rows of the fit.

        Returns
        -------
        DataFrame
            Columns as ``params``, those dropped from the fit left out; the index is that of the
            data. ``model_matrix(new) @ params`` is the population prediction less the offset, and
            rows of it, or their differences and means, are hypotheses for `test`. NaN in rows with
            a missing value.

        Raises
        ------
        DataError
            Unknown column, unseen level of a factor; without ``newdata`` a fit that holds no data.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())
        >>> girl, boy = fit.model_matrix({"age": [8, 8], "Sex": ["Female", "Male"]}).to_numpy()
        >>> print(round(fit.test([boy - girl]).p_value, 3))
        0.101
        """
        from lmmfast.prediction.model_matrix import model_matrix

        return model_matrix(self, newdata)

    def scorer(
        self,
        level: Any = "conditional",
        new_levels: NewLevels = "population",
        *,
        residual: str = "process",
    ) -> Scorer:
        """Return what predicts new rows over and over, as a service does: one row in microseconds.

        Parameters
        ----------
        level, new_levels
            As in `predict`. There is no warning of new groups: what is to be done is said here.
        residual : {"process", "none"}
            "none" leaves the process of a residual structure with a nugget out of conditional
            predictions; a scorer, which holds no rows, cannot have it.

        Returns
        -------
        Scorer
            It holds no rows, cannot be changed, may be used by any number of threads at once, and
            can be pickled: ``score(rows)``, ``score.one(id=7, t=0.3)``.

        Raises
        ------
        UnsupportedModelError
            A process in conditional predictions, see ``residual``.

        Warns
        -----
        NewDataWarning
            Columns of X were dropped, or the fit had an offset given as an array.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> round(fit.scorer().one(Subject="S308", Days=10), 1)
        450.3
        """
        from lmmfast.prediction.scorer import make_scorer

        return make_scorer(self, level, new_levels, residual)

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        level: Any = "conditional",
        *,
        residual: str = "process",
    ) -> None:
        """Write the predictions of new rows as an ONNX graph, for services that run no Python.

        Inputs are the columns of the model, each of shape (rows,): numbers in double precision,
        factors of text as strings, groups as 64-bit integers or strings; combined groups ``a:b`` by
        their label, as in ``random_effects``. The output ``prediction`` (rows,) is in double
        precision, and onnxruntime gives every bit of `predict`.

        Parameters
        ----------
        path : path
            A file of this name is replaced when the new one is whole.
        level
            As in `predict`.
        residual : {"process", "none"}
            As in `scorer`.

        Raises
        ------
        ImportError
            onnx is not installed (``pip install 'lmmfast[onnx]'``).
        UnsupportedModelError
            Formulas with functions, categories of numbers, groups that are no integers or texts;
            a process in conditional predictions.
        TooLargeError
            More than 2 GB, some 6 * 10^7 groups.

        Notes
        -----
        Groups that the fit did not have are predicted without their random effects. Levels of
        factors that it has not seen give NaN, as a graph cannot raise errors.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
        >>> fit.to_onnx("sleep.onnx")  # doctest: +SKIP
        """
        from lmmfast.prediction.predict import rowless_predictor
        from lmmfast.prediction.to_onnx import write_onnx

        about = {"y": self.y_name, "method": self.method, "log-likelihood": repr(self.llf)}
        write_onnx(rowless_predictor(self, level, residual, "an ONNX graph"), path, about)

    def plot_curves(self, data: Any, x: str, **options: Any) -> Axes:
        """Draw curves of subjects, or of other levels, over the population line.

        Parameters
        ----------
        data : table
            With the columns of the model, for instance that of the fit.
        x : str
            Column on the horizontal axis.
        **options
            See `lmmfast.plots.curves.plot_curves`.

        Returns
        -------
        matplotlib Axes
        """
        from lmmfast.plots.curves import plot_curves

        return plot_curves(self, data, x, **options)

    def plot_random_effects(
        self, factor: str | None = None, effect: str | None = None, **options: Any
    ) -> NDArray[Any]:
        """Draw the predicted random effects, sorted, with their intervals: a caterpillar plot.

        Parameters
        ----------
        factor, effect : str, optional
            One grouping factor, one effect; by default a panel for each effect of each factor.
        **options
            See `lmmfast.plots.effects.plot_random_effects`.

        Returns
        -------
        ndarray of matplotlib Axes
        """
        from lmmfast.plots.effects import plot_random_effects

        return plot_random_effects(self, factor, effect, **options)

    def plot(self, **options: Any) -> NDArray[Any]:
        """Draw the four pictures that one looks at first: residuals, quantiles, influence.

        Parameters
        ----------
        **options
            See `lmmfast.plots.overview.plot`.

        Returns
        -------
        ndarray of matplotlib Axes (2, 2)
        """
        from lmmfast.plots.overview import plot

        return plot(self, **options)

    def plot_residuals(self, **options: Any) -> Axes:
        """Draw residuals over fitted values, with a line through their means.

        Parameters
        ----------
        **options
            See `lmmfast.plots.residuals.plot_residuals`.

        Returns
        -------
        matplotlib Axes
        """
        from lmmfast.plots.residuals import plot_residuals

        return plot_residuals(self, **options)

    def plot_qq(self, **options: Any) -> Axes:
        """Draw the quantiles of residuals over those of the normal distribution, with a band.

        Parameters
        ----------
        **options
            See `lmmfast.plots.quantiles.plot_qq`.

        Returns
        -------
        matplotlib Axes
        """
        from lmmfast.plots.quantiles import plot_qq

        return plot_qq(self, **options)

    def plot_qq_effects(
        self, factor: str | None = None, effect: str | None = None, **options: Any
    ) -> NDArray[Any]:
        """Draw the quantiles of the predicted random effects, with bands.

        Parameters
        ----------
        factor, effect : str, optional
            One grouping factor, one effect; by default a panel for each effect of each factor.
        **options
            See `lmmfast.plots.quantiles.plot_qq_effects`.

        Returns
        -------
        ndarray of matplotlib Axes
        """
        from lmmfast.plots.quantiles import plot_qq_effects

        return plot_qq_effects(self, factor, effect, **options)

    def plot_influence(self, measure: str = "cooks_d", **options: Any) -> Axes:
        """Draw a measure of influence for each group, or each row, the largest named.

        Parameters
        ----------
        measure : str
            A column of `influence`.
        **options
            See `lmmfast.plots.influence.plot_influence`.

        Returns
        -------
        matplotlib Axes
        """
        from lmmfast.plots.influence import plot_influence

        return plot_influence(self, measure, **options)

    def plot_variance_partition(self, **options: Any) -> Axes:
        """Draw the shares of the variance as bars: see `variance_partition`.

        Parameters
        ----------
        **options
            See `lmmfast.plots.effects.plot_variance_partition`.

        Returns
        -------
        matplotlib Axes
        """
        from lmmfast.plots.effects import plot_variance_partition

        return plot_variance_partition(self, **options)

    # -- other responses, more rows --------------------------------------------------------------

    def refit(
        self,
        y_new: Any,
        *,
        start: Any = "warm",
        n_jobs: int | None = None,
        max_iter: int = 200,
        verbose: int = 0,
        callback: Callable[[dict[str, Any]], None] | None = None,
    ) -> LMMResult:
        """Fit the same model to another response, as a fit of it from the beginning would.

        X, Z, groups, weights and offset are those of this fit, and so is the estimation method.

        Parameters
        ----------
        y_new : array (n,)
            The response on the scale of the model (of ``log(y) ~ …`` the logarithms; with an
            offset not yet subtracted): a value for each row used, in the order of the data, or for
            each row of the data; then values in rows that the fit left out are not looked at.
        start : {"warm", "cold"}, LMMResult or array
            Begin at the variance parameters of this fit, as `lmmfast.lmm` does, at those of
            another fit of this model, or at a ``theta``. Heterogeneous compound symmetry, and a fit
            that has not converged, always start cold.
        n_jobs : int, optional
            Default: as in this fit.
        max_iter, verbose, callback
            See `lmmfast.lmm`.

        Returns
        -------
        LMMResult

        Raises
        ------
        DataError
            Missing or infinite values, another number of rows, a fit that holds no data.

        Notes
        -----
        Columns that this fit dropped stay dropped, without another warning.

        Examples
        --------
        >>> import lmmfast as lf
        >>> d = lf.datasets.sleepstudy()
        >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", d)
        >>> bool(abs(fit.refit(2 * d["Reaction"]).sigma / fit.sigma - 2) < 1e-8)
        True
        """
        from lmmfast.fitting.refit import continued, refit

        new = refit(self, y_new, continued(self, start, n_jobs, max_iter, verbose, callback))
        new._method = self._method
        return new

    def append(
        self,
        data: Any,
        X: Any = None,
        groups: Any = None,
        Z: Any = None,
        *,
        weights: Any = None,
        offset: Any = None,
        missing: Missing | None = None,
        start: Any = "warm",
        n_jobs: int | None = None,
        max_iter: int = 200,
        verbose: int = 0,
        callback: Callable[[dict[str, Any]], None] | None = None,
        in_place: bool = False,
    ) -> LMMResult:
        """Fit the rows of this fit and new ones together, without the rows of this fit.

        New rows may belong to new groups or to groups that the fit has. This fit stays as it is.

        Parameters
        ----------
        data : table, or array (n,) for models fitted to arrays
            New rows with the columns of the model; or their response y.
        X, groups, Z : array
            For models fitted to arrays: as in `lmmfast.fit`. Tables are read by column name.
        weights, offset : str or array (n,), optional
            Needed where the fit had an array; columns of the fit are found by their names.
        missing : {"drop", "exclude", "raise"}, optional
            Default: "drop" for formulas, "raise" for arrays.
        start, n_jobs, max_iter, verbose, callback
            See `refit`.
        in_place : bool
            The packed clusters of this fit are not copied: the new fit takes them over. This one
            keeps its estimates and what was computed before, and has no data any more. If there is
            an error it stays as it is.

        Returns
        -------
        LMMResult
            Equal to a fit of all rows. It holds no rows: ``fittedvalues``, ``resid`` and ``refit``
            are errors; ``predict(data)``, random effects and `append` work.

        Raises
        ------
        DataError
            Unseen level of a factor; columns that are constant, dropped, or far away and nearly
            constant in one part of the rows and not in the other: fit all the data anew then.

        Notes
        -----
        Levels of factors and what ``center(x)``, ``scale(x)``, ``bs(x)`` and the like have learnt
        stay as they were in the first fit. Groups are reported in sorted order if labels sort,
        else new ones after the old.
        """
        from lmmfast.fitting.append import append
        from lmmfast.fitting.refit import continued

        options = continued(self, start, n_jobs, max_iter, verbose, callback)
        new = append(self, data, X, groups, Z, weights, offset, missing, options, in_place)
        new._method = self._method
        return new

    def drop(
        self, groups: Any, *, start: Any = "warm", n_jobs: int | None = None, max_iter: int = 200
    ) -> LMMResult:
        """Fit the rows of this fit without those of some groups, which are subtracted.

        This fit stays as it is. The rows of the groups that stay are not read.

        Parameters
        ----------
        groups : label, or sequence of labels
        start, n_jobs, max_iter
            See `refit`.

        Returns
        -------
        LMMResult
            Equal to a fit of the rows that are left. It holds no rows, as after `append`.

        Raises
        ------
        DataError
            The fit does not have such a group or holds no rows, or so little would be left that
            digits would be lost.
        UnsupportedModelError
            Several grouping factors or a residual structure.

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (1 | Subject)", lf.datasets.sleepstudy())
        >>> fit.drop(["S308", "S309"]).ngroups
        16
        """
        from lmmfast.fitting.drop import drop
        from lmmfast.fitting.refit import continued

        new = drop(self, groups, continued(self, start, n_jobs, max_iter, 0, None))
        new._method = self._method
        return new

    # -- printing and saving ---------------------------------------------------------------------

    def summary(self, alpha: float = 0.05) -> Summary:
        """Return the report: model, convergence, random effects, fixed effects."""
        from lmmfast.report.summary import summarise

        return summarise(self, alpha)

    def table(self, format: str = "markdown", alpha: float = 0.05) -> Any:
        """Return fixed effects and variance parameters as a table for a text.

        Parameters
        ----------
        format : {"markdown", "latex", "html", "great_tables"}
            Text; LaTeX's with booktabs. "great_tables" is a ``great_tables.GT`` to work on (extra
            ``tables``).
        alpha : float
            One minus the level of the intervals.

        Returns
        -------
        str or great_tables.GT

        Examples
        --------
        >>> import lmmfast as lf
        >>> fit = lf.lmm("Reaction ~ Days + (1 | Subject)", lf.datasets.sleepstudy())
        >>> print(fit.table().splitlines()[3])
        | Intercept | 251.405 | 9.747 | [231.233, 271.577] | <0.0001 |
        """
        from lmmfast.report.publish import publish

        return publish(self, format, alpha)

    def __repr__(self) -> str:
        """Return one paragraph."""
        effects = ", ".join(f"{name} {value:.6g}" for name, value in self.params.items())
        groups = " and ".join(f"{m} groups of {g!r}" for g, (m, _) in self._grouping.items())
        return (
            f"<{type(self).__name__} {self.method}: {self.nobs} rows, {groups}, log-likelihood "
            f"{self.llf:.6f}; {effects}; {self.certificate.status}>"
        )

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def save(
        self, path: str | os.PathLike[str], *, effects: bool = True, clusters: bool = False
    ) -> None:
        """Save the fit to a file, which `lmmfast.load` reads: without its rows, as `remove_data`.

        Parameters
        ----------
        path : path
            A file of this name is replaced when the new one is whole.
        effects : bool
            With the predictions of the random effects, which conditional predictions need, and
            the labels of the groups. They are most of a large file.
        clusters : bool
            With the packed clusters and the sums of robust variances: after loading rows can be
            appended, and `random_effects_cov`, `at` and robust variances by group are to be had. Of
            q random and p fixed effects q (q + 1) / 2 + q (p + 1) + p (p + 1) doubles a group.

        Raises
        ------
        DataError
            Something that cannot be saved, such as labels that are neither numbers nor text nor
            dates.
        UnsupportedModelError
            ``clusters`` of fits with several grouping factors or a residual structure.
        OSError
            As the operating system says; no part of a file stays.

        Notes
        -----
        The file is a zip archive of JSON and NumPy's arrays with checksums. The same fit gives the
        same bytes.
        """
        from lmmfast.persist.files import save

        save(self, path, effects, clusters)

    def random_effects_to(self, path: str | os.PathLike[str]) -> None:
        """Write the predictions of the random effects to a Parquet file, piece by piece.

        A row for each group: its label, under the name of the grouping factor, and its effects. Of
        a fit whose packed clusters are in a scratch file no more than a piece is in memory; groups
        stand in the order in which they were packed then, else as in ``random_effects``.

        Parameters
        ----------
        path : path
            A file of this name is replaced when the new one is whole.

        Raises
        ------
        UnsupportedModelError
            Several grouping factors.
        OSError
            As the operating system says; no part of a file stays.
        """
        from lmmfast.streaming.effects import write_effects

        write_effects(self, path)

    def remove_data(self) -> LMMResult:
        """Return a copy without the data and the clusters; this fit stays as it was.

        Random effects stay. Fitted values, residuals and covariances of random effects are not to
        be had from the copy.
        """
        self._compute_what_needs_data()
        bare = self.__copy__()
        bare._design = bare._clusters = bare._engine = bare._residual_model = None
        bare._fingerprints = None
        bare.__dict__.update(self._conclusions_without_rows())
        return bare

    def _conclusions_without_rows(self) -> dict[str, Any]:
        """What a fit without rows has instead of sums by group and a column of clusters."""
        if not self._method.needs_rows:
            return {}
        kept = kept_denominators(self._method.vcov, self._cov_beta, self._df)
        return {"_method": replace(self._method, cluster=None), "_denominators": kept}

    def _compute_what_needs_data(self) -> None:
        """Fill the caches that a fit without data is to keep."""
        _ = self._effects, self._group_labels, self._response_sum
        with contextlib.suppress(DataError):  # out of range: then there are no standard errors
            _ = self._inverse_information
        with contextlib.suppress(DataError):  # a fit with appended rows holds none
            _ = self._mean_variances
        if self._structure is not None:
            with contextlib.suppress(DataError):
                _ = self._known_columns
        if self._keeps_second_order:
            with contextlib.suppress(DataError, ConvergenceError):
                _ = self._inference_totals

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without data: see `remove_data`."""
        if self._engine is not None:
            self._compute_what_needs_data()
        data = ("_design", "_clusters", "_engine", "_residual_model", "_fingerprints")
        state = {**self.__dict__, **dict.fromkeys(data), **self._conclusions_without_rows()}
        state.pop("_factor_effects", None)  # it holds the lookups of groups
        return with_version(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(checked(state))

    def __copy__(self) -> LMMResult:
        """Copy with the data, which are shared."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> LMMResult:
        """As `copy.copy`: nothing in a fit is meant to be changed."""
        return self.__copy__()

    def _series(self, values: Array) -> pd.Series[float]:
        import pandas as pd

        return pd.Series(values, index=self.x_names, copy=True)

    def _check_data(self, response: bool = True) -> None:
        """Raise a DataError if the data that the fit holds are no longer those of the fit."""
        if self._fingerprints is not None:
            self._fingerprints.check(response)

    @staticmethod
    def _need(part: T | None, what: str) -> T:
        if part is None:
            raise DataError(f"{what} need the data, which a saved or stripped fit does not hold")
        return part


def _propagated(cov: Array, lost: Array, J: Array) -> Array:
    """J cov J'; NaN for parameters that depend on one whose variance is NaN, or that is lost."""
    free = ~np.isnan(np.diag(cov))
    known = (J[:, ~free] == 0).all(axis=1) & ~moved_by(lost, J)[1]
    if known.all() and np.array_equal(J, np.eye(len(J))):
        return cov.copy()
    out = np.full((len(J), len(J)), np.nan)
    J = J[np.ix_(known, free)]
    out[np.ix_(known, known)] = J @ cov[np.ix_(free, free)] @ J.T
    return out
