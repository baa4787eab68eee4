"""From a result to the record of its fit, and from a record to a result without rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmfast.fitted import Fitted, FittedFactor, FromRows, InferenceChoice, WorkingOptimum
from lmmfast.inference.kept import kept_denominators
from lmmfast.inference.methods import Method
from lmmfast.prediction.effects import LevelsResult
from lmmfast.result import LMMResult
from lmmfast.search.estimates import Estimates
from lmmfast.search.objective import Problem


def fitted_of(fit: LMMResult, effects: bool = True) -> Fitted:
    """Collect what is known of a fit without its rows.

    Parameters
    ----------
    effects : bool
        With the predictions of the random effects, and labels of the groups.

    Raises
    ------
    DataError
        A number that takes the rows, of a fit whose rows have changed.
    """
    if fit._engine is not None:
        fit._compute_what_needs_data()
    own = fit._estimates
    return Fitted(
        spec=fit.spec,
        terms=tuple(fit.terms),
        y_name=fit.y_name,
        group_name=fit.group_name,
        method=fit.method,
        structure=fit._structure,
        covariance=fit._covariance,
        factors=_factors(fit, effects),
        nobs=fit.nobs,
        n_dropped=fit.n_dropped,
        missing_counts=fit.missing_counts,
        keep=fit._keep,
        x_names=fit.x_names,
        dropped_columns=fit.dropped_columns,
        dropped_effects=fit.dropped_effects,
        weighted=fit.weighted,
        engine=fit.engine,
        n_designs=fit.n_designs,
        beta=own.beta,
        cov_beta=own.cov_beta,
        D=own.D,
        sigma2=own.sigma2,
        llf=own.loglik,
        theta=own.theta,
        working=_working(fit),
        basis=fit._basis,
        certificate=fit.certificate,
        trace=fit.trace,
        from_rows=_from_rows(fit),
        redundancy=fit._redundancy,
        identifiable=fit._identifiable,
        inference=_inference(fit),
        known_columns=fit.__dict__.get("_known_columns"),
    )


def _working(fit: LMMResult) -> WorkingOptimum:
    return WorkingOptimum(
        phi=fit._phi,
        D=fit._D,
        Lambda=fit._Lambda,
        unit=float(fit._unit),
        c=fit._c,
        constant=float(fit._problem.constant),
        n_flat=int(fit._n_flat),
    )


def _from_rows(fit: LMMResult) -> FromRows:
    known = fit.__dict__
    cov, lost = known.get("_inverse_information", (None, None))
    return FromRows(
        totals=known.get("_inference_totals"),
        cov_working=cov,
        lost=lost,
        mean_variances=known.get("_mean_variances"),
        response_sum=known.get("_response_sum"),
    )


def _factors(fit: LMMResult, effects: bool) -> tuple[FittedFactor, ...]:
    predicted: list[Any] = [None] * len(fit._grouping)
    if effects:
        predicted = list(fit._factor_effects)
    columns: Any = getattr(fit, "_columns", (np.arange(len(fit.z_names)),))
    nested_in = fit.nested_in
    return tuple(
        FittedFactor(
            name=name,
            columns=np.asarray(own_columns),
            nested_in=nested_in[name],
            n_groups=m,
            sizes=sizes,
            labels=None if own is None else own.labels,
            effects=None if own is None else own.b,
        )
        for (name, (m, sizes)), own_columns, own in zip(
            fit._grouping.items(), columns, predicted, strict=True
        )
    )


def _inference(fit: LMMResult) -> InferenceChoice:
    method = fit._method
    if not method.needs_rows:
        return InferenceChoice(method.ddf, method.vcov, method.information)
    return InferenceChoice(
        method.ddf, method.vcov, method.information, cov=fit._cov_beta, df=fit._df
    )


def result_of(fitted: Fitted) -> LMMResult:
    """Make a result of a record; what takes rows is refused by it."""
    kind = LevelsResult if len(fitted.factors) > 1 else LMMResult
    result: Any = object.__new__(kind)
    result.__dict__.update(
        spec=fitted.spec,
        terms=fitted.terms,
        y_name=fitted.y_name,
        group_name=fitted.group_name,
        nobs=fitted.nobs,
        n_dropped=fitted.n_dropped,
        weighted=fitted.weighted,
        engine=fitted.engine,
        n_designs=fitted.n_designs,
        method=fitted.method,
        certificate=fitted.certificate,
        _keep=fitted.keep,
        _basis=fitted.basis,
        _covariance=fitted.covariance,
        _estimates=Estimates(
            beta=fitted.beta,
            cov_beta=fitted.cov_beta,
            D=fitted.D,
            sigma2=fitted.sigma2,
            loglik=fitted.llf,
            theta=fitted.theta,
        ),
        _structure=fitted.structure,
        _redundancy=fitted.redundancy,
        _identifiable=fitted.identifiable,
        _response_sum=fitted.from_rows.response_sum,
        **dict.fromkeys(("_design", "_clusters", "_engine", "_residual_model", "_fingerprints")),
    )
    for name in ("missing_counts", "x_names", "dropped_columns", "dropped_effects", "trace"):
        setattr(result, name, getattr(fitted, name))
    if fitted.known_columns is not None:
        result.__dict__["_known_columns"] = fitted.known_columns
    _set_working(result, fitted)
    _set_factors(result, fitted)
    _set_from_rows(result, fitted)
    return result


def _set_working(result: Any, fitted: Fitted) -> None:
    working = fitted.working
    result._phi, result._D, result._Lambda = working.phi, working.D, working.Lambda
    result._unit, result._c, result._n_flat = working.unit, working.c, working.n_flat
    reml = fitted.method == "REML"
    result._problem = Problem(fitted.keep, fitted.nobs, reml, working.constant)


def _set_factors(result: Any, fitted: Fitted) -> None:
    factors = fitted.factors
    result._grouping = {own.name: (own.n_groups, own.sizes) for own in factors}
    result.nested_in = {own.name: own.nested_in for own in factors}
    complete = all(own.labels is not None and own.effects is not None for own in factors)
    if len(factors) == 1:
        (own,) = factors
        result.ngroups, result.group_sizes = own.n_groups, own.sizes
        if complete:
            result.__dict__.update(_group_labels=own.labels, _effects=own.effects)
        return
    result.factor_names = tuple(own.name for own in factors)
    result._columns = tuple(own.columns for own in factors)
    result.ngroups = {own.name: own.n_groups for own in factors}
    result.group_sizes = {own.name: own.sizes for own in factors}
    if complete:
        result.__dict__.update(
            _group_labels={own.name: own.labels for own in factors},
            _effects=[own.effects for own in factors],
        )


def _set_from_rows(result: Any, fitted: Fitted) -> None:
    """Fill what the result would compute from its rows, so far as it is known."""
    rows, choice = fitted.from_rows, fitted.inference
    result._method = Method(choice.ddf, choice.information, choice.vcov)
    known = result.__dict__
    if rows.totals is not None:
        known["_inference_totals"] = rows.totals
    if rows.cov_working is not None:
        known["_inverse_information"] = rows.cov_working, rows.lost
    if rows.mean_variances is not None:
        known["_mean_variances"] = rows.mean_variances
    if choice.cov is not None and choice.df is not None:
        known["_denominators"] = kept_denominators(choice.vcov, choice.cov, choice.df)
