"""A model whose parameters are given and not estimated, for what its law implies."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.joint import JointCovariance
from lmmfast.covariance.terms import BlockCovariance, natural_names
from lmmfast.design.design import Design, design_levels
from lmmfast.engines.engine import engine_at
from lmmfast.errors import DataError
from lmmfast.fitting.levels import LevelsFit
from lmmfast.fitting.nested_residual import NestedResidualFit
from lmmfast.fitting.options import Options
from lmmfast.fitting.prepare import choose_covariance, prepare, report_dropped
from lmmfast.fitting.residual import ResidualFit
from lmmfast.fitting.start import given_residual_starts, given_start
from lmmfast.grouping.clusters import gather
from lmmfast.packing.basis import Basis
from lmmfast.prediction.effects import LevelsResult
from lmmfast.residual.model import ResidualModel
from lmmfast.result import LMMResult
from lmmfast.search.certificate import Certificate
from lmmfast.search.estimates import Estimates, make_problem
from lmmfast.search.objective import Problem
from lmmfast.search.optimum import Optimum

#: A D that is reproduced less closely is no covariance matrix of its structure.
NO_COVARIANCE = 1e-8


def parameters_at(
    covariance: BlockCovariance, basis: Basis, theta: Array, names: list[str]
) -> tuple[Array, float]:
    """Search parameters, and sigma2 of the user's scale, at variance parameters.

    Parameters
    ----------
    theta : ndarray (n_theta,)
    names : list of str
        Of theta, for messages.

    Raises
    ------
    DataError
        Parameters out of their range.
    """
    k, sigma2 = len(theta) - 1, float(theta[-1])
    if isinstance(covariance, JointCovariance):
        k = covariance.n_random
        phi = given_residual_starts(covariance, basis, theta, "theta")[0]
        # The sigma2 of which the last reported variance is what theta says.
        sigma2 /= float(covariance.theta(np.eye(covariance.q), 1.0, phi)[-1])
    else:
        phi = given_start(covariance, basis, theta, "theta")
    D = covariance.Lambda(phi) @ covariance.Lambda(phi).T
    A = basis.z_map()
    back = covariance.theta(sigma2 / basis.weight_scale * (A @ D @ A.T), sigma2, phi)
    size = np.abs(theta[:k]).max(initial=0.0)
    if not np.allclose(back[:k], theta[:k], rtol=NO_COVARIANCE, atol=NO_COVARIANCE * size):
        raise DataError(
            "theta has variances and covariances of random effects that are no covariance "
            f"matrix: {dict(zip(names[:k], theta[:k].tolist(), strict=True))}"
        )
    return phi, sigma2


def model_at(design: Design, beta: Any, theta: Any, reml: bool) -> LMMResult:
    """Make what a fit would be whose estimates are beta and theta.

    Parameters
    ----------
    design : Design
        With some response, which is not looked at but has to be one.
    beta, theta
        Sequences in the order of the names, or by name.

    Raises
    ------
    DataError
        Parameters out of their range, another number of them, columns of X that depend on others.
    """
    kind, clusters, engine, covariance, basis, problem, model = _stages(
        design, Options(reml, "raise")
    )
    names = [*natural_names(design.terms), *covariance.theta_tail_names()]
    x_names = [design.x_names[j] for j in problem.keep]
    given, slopes = numbers_of(theta, names, "theta"), numbers_of(beta, x_names, "beta")
    phi, sigma2 = parameters_at(covariance, basis, given, names)
    Lambda, p = covariance.Lambda(phi), len(slopes)
    unit, A = sigma2 / basis.weight_scale, basis.z_map()
    optimum = Optimum(
        reason="given",
        phi=phi,
        Lambda=Lambda,
        D=Lambda @ Lambda.T,
        sigma2=unit / basis.y_scale**2,
        beta=np.full(p, np.nan),
        S_inv_root=np.full((p, p), np.nan),
        loglik=np.nan,
        decrement=np.nan,
        smallest_eigenvalue=np.nan,
        ranks=[],
        multiplier=None,
        trace=[],
    )
    estimates = Estimates(
        beta=slopes,
        cov_beta=np.full((p, p), np.nan),
        D=unit * (A @ optimum.D @ A.T),
        sigma2=sigma2,
        loglik=np.nan,
        theta=given,
    )
    result = kind(
        design=design,
        clusters=clusters,
        engine=engine_at(engine, covariance, phi),
        basis=basis,
        covariance=covariance,
        problem=problem,
        optimum=optimum,
        estimates=estimates,
        certificate=Certificate(False, "parameters are given", np.nan, np.nan, {}, None, 0),
    )
    result._residual_model = model
    return result


class _Stages(NamedTuple):
    """What the stages of `lmmfast.fitting.pipeline` up to the search leave."""

    kind: type[LMMResult]
    clusters: Any
    engine: Any
    covariance: BlockCovariance
    basis: Basis
    problem: Problem
    model: ResidualModel | None


def _stages(design: Design, options: Options) -> _Stages:
    """Run these stages, without what asks whether the data can tell the parameters."""
    random = choose_covariance(design)
    independent = design.residual is None or design.residual.is_independent
    if len(design.factor_names) > 1:
        levels = design_levels(design)
        stage: Any = LevelsFit if independent else NestedResidualFit
        return _searchable(design, stage(design, levels, random, options), levels, LevelsResult)
    clusters = gather(design.keys, options.n_jobs)
    if not (independent and design.terms):
        fit = ResidualFit(design, clusters, random, options)
        return _searchable(design, fit, fit.clusters, LMMResult)
    data = prepare(design, clusters, options)
    report_dropped(design, data.keep, options)
    problem = make_problem(data.keep, design.n_obs, options.reml, data.basis, data.log_weights)
    return _Stages(LMMResult, clusters, data.engine, random, data.basis, problem, None)


def _searchable(design: Design, fit: Any, clusters: Any, kind: type[LMMResult]) -> _Stages:
    report_dropped(design, fit.keep, fit.options)
    return _Stages(kind, clusters, fit.engine, fit.covariance, fit.basis, fit.problem, fit.model)


def numbers_of(values: Any, names: list[str], what: str) -> Array:
    """Finite numbers, one for each name: a sequence in their order, or a mapping or Series."""
    import pandas as pd

    if isinstance(values, pd.Series):
        values = values.to_dict()
    if isinstance(values, dict):
        unknown = [name for name in values if name not in names]
        missing = [name for name in names if name not in values]
        if unknown or missing:
            raise DataError(
                f"{what} must have a value for each of {', '.join(names)}; "
                f"{'unknown: ' + str(unknown[0]) if unknown else 'missing: ' + missing[0]}"
            )
        values = [values[name] for name in names]
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (len(names),) or not np.isfinite(found).all():
        raise DataError(
            f"{what} must be {len(names)} finite numbers, for {', '.join(names)}, in this order"
        )
    return found
