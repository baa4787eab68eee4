"""The two ways in, `lmm` (formula) and `fit` (arrays), and the stages that both go through."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.covariance.random import natural_names
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.design.design import Design, check_finite, design_levels, warn_of_missing_rows
from lmmfast.engines.engine import Engine, MomentsEngine, engine_at
from lmmfast.engines.reference import ReferenceEngine
from lmmfast.errors import (
    ConvergenceWarning,
    DataError,
    EmptyEffectsError,
    NotIdentifiableWarning,
    RankWarning,
    UnsupportedModelError,
)
from lmmfast.fitting.identify import (
    check_clusters,
    check_information,
    check_levels,
    check_response,
    check_within,
)
from lmmfast.fitting.redundancy import conclude_in_the_middle
from lmmfast.fitting.small import fit_small
from lmmfast.fitting.start import given_start
from lmmfast.grouping.clusters import Clusters, gather
from lmmfast.grouping.implicit_nesting import warn_of_implicit_nesting
from lmmfast.inference.methods import Method
from lmmfast.limits import check_fixed_effects
from lmmfast.literals import EngineName, Identifiable, Missing, RankDeficient
from lmmfast.packing.basis import Basis, check_scales, choose_basis
from lmmfast.packing.compress import CompressedClusters, SampleMisledError, compress
from lmmfast.residual.structures import ResidualStructure
from lmmfast.result import LMMResult
from lmmfast.search.certificate import certify
from lmmfast.search.estimates import estimates, independent_columns, make_problem
from lmmfast.search.multistart import maximise
from lmmfast.search.objective import Problem
from lmmfast.search.optimum import Optimum, compiled_maximise
from lmmfast.search.scoring import Search, climb_from_known_starts, log_evaluation, root_steps

ENGINES = ("auto", "moments", "dense", "markov", "nested", "crossed", "reference")


#: More points to start from than anybody waits for.
MOST_STARTS = 10_000


@dataclass(frozen=True)
class Options:
    """Settings of a fit that do not belong to the data; see `lmm`."""

    reml: bool = True
    rank_deficient: str = "drop"
    engine: str = "auto"
    start: Any = None
    n_jobs: int | None = None
    max_iter: int = 200
    verbose: int = 0
    callback: Callable[[dict[str, Any]], None] | None = None
    n_starts: int | None = None
    identifiable: str = "raise"

    def __post_init__(self) -> None:
        if self.identifiable not in ("raise", "warn"):
            raise DataError(f"identifiable={self.identifiable!r}: choose 'raise' or 'warn'")
        if self.rank_deficient not in ("drop", "raise"):
            raise DataError(f"rank_deficient={self.rank_deficient!r}: choose 'drop' or 'raise'")
        if self.engine not in ENGINES:
            raise DataError(f"engine={self.engine!r}: choose one of {', '.join(ENGINES)}")
        if not isinstance(self.reml, bool | np.bool_):
            raise DataError(f"reml={self.reml!r}: choose True (REML) or False (ML)")
        if not isinstance(self.max_iter, int | np.integer) or self.max_iter < 1:
            raise DataError(f"max_iter={self.max_iter!r}: give a positive whole number")
        wanted = self.n_starts
        if wanted is not None and (
            not isinstance(wanted, int | np.integer) or not 1 <= wanted <= MOST_STARTS
        ):
            raise DataError(
                f"n_starts={wanted!r}: give a positive whole number up to {MOST_STARTS:,}, or None"
            )
        if self.callback is not None and not callable(self.callback):
            raise DataError(f"callback={self.callback!r} must be a function of the trace entry")
        if not isinstance(self.verbose, int | np.integer | np.bool_):
            raise DataError(f"verbose={self.verbose!r}: choose 0 or 1")


def lmm(
    formula: str,
    data: Any,
    *,
    groups: Any = None,
    residual: ResidualStructure | None = None,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    D: Any = None,
    context: Mapping[str, Any] | None = None,
    subset: Any = None,
    missing: Missing = "drop",
    rank_deficient: RankDeficient = "drop",
    identifiable: Identifiable = "raise",
    engine: EngineName = "auto",
    start: Any = None,
    n_starts: int | None = None,
    n_jobs: int | None = None,
    max_iter: int = 200,
    verbose: int = 0,
    callback: Callable[[dict[str, Any]], None] | None = None,
    ddf: str = "satterthwaite",
    vcov: str = "model",
) -> LMMResult:
    """Fit a linear mixed model given by a formula.

    Parameters
    ----------
    formula : str
        lme4's notation, for instance ``"y ~ x + (1 + t | g)"``: formulaic's on the fixed side and
        within the bars; ``||``, ``diag()``, ``cs()``, ``identity()`` choose D. A formula can run
        code: never take one from a source you do not trust.
    data : table
        pandas, polars or pyarrow table, or a dict of one-dimensional arrays.
    groups : str or list of str, optional
        Column of the clusters within which residuals are correlated, for a model without random
        effects (as nlme's gls, mmrm, PROC MIXED with REPEATED alone).
    residual : ResidualStructure, optional
        Covariance structure of the residuals, such as ``lmmfast.AR1("visit")`` or
        ``lmmfast.OU("t", nugget=True)``; see docs/structures.md. Default: independent.
    reml : bool
        Restricted maximum likelihood (default) or maximum likelihood.
    weights : str or array (n,), optional
        Known positive weights w: the residual variance of a row is sigma2 / w.
    offset : str or array (n,), optional
        Known part of the mean.
    D : RandomStructure or list of them, optional
        Covariance structures of the terms (``lmmfast.D.diag()``, …) in place of unstructured.
    context : mapping, optional
        Functions and values that the formula uses beside the columns, such as ``{"f": f}``; the fit
        keeps them for predictions. Columns of the data come first.
    subset : str or array of bool (n,), optional
        Rows to be used: a condition on columns, such as ``"age > 40 & arm == 'A'"``, or a mask.
        Rows for which it is missing are not used; levels that do not occur in it are none.
    missing : {"drop", "exclude", "raise"}
        Leave out rows with missing values (``fit.n_dropped`` counts them), or refuse them. With
        "exclude" fitted values and residuals have NaN in their places, as R's na.exclude: there are
        as many as rows of the data, or of the subset.
    rank_deficient : {"drop", "raise"}
        Leave out columns of X that earlier ones determine, and columns of Z that are zero in all
        rows, with a warning, or refuse them.
    identifiable : {"raise", "warn"}
        Refuse variance parameters that the data cannot tell apart, or fit in spite of it, with a
        warning: of all points that are maxima alike the one in the middle, where the parts of a sum
        of two variances are equal. ``fit.certificate`` and ``fit.variance_table()`` name the sums
        that are known; standard errors of the parts are NaN.
    engine : {"auto", "moments", "dense", "markov", "nested", "crossed", "reference"}
        How V is factorised: "moments" for independent residuals, "dense" and "markov" for residual
        structures, "nested" and "crossed" for several grouping factors; "reference" is slow, plain
        NumPy.
    start : LMMResult or array, optional
        Where to begin: a fit of the same model, or its ``theta``.
    n_starts : int, optional
        From how many points the likelihood is climbed; the highest end counts. The first is
        ``start`` or a guess from moments, then come points where such models may have other maxima,
        then others drawn at random, the same ones each time. Default: one; of up to 500 rows
        several, as many as the kind of model calls for.
    n_jobs : int, optional
        Threads; default: ``LMMFAST_NUM_THREADS``, else the processors this process may use.
    max_iter : int
        Most evaluations of the likelihood, from each starting point.
    verbose : int
        1 prints each evaluation.
    callback : callable, optional
        Called with the trace entry (a dict) of each evaluation; raising ``StopIteration`` in it
        ends the fit at the best point so far, not converged.
    ddf, vcov : str
        Degrees of freedom and covariance matrix of the tables: see `LMMResult.inference`.

    Returns
    -------
    LMMResult

    Raises
    ------
    FormulaError, DataError, NotIdentifiableError, UnsupportedModelError
        All of them name the column, term or row at fault.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> round(fit.llf, 4)
    -871.8141
    """
    from lmmfast.design.from_formula import FormulaDesign

    method = Method(ddf, vcov=vcov)
    options = Options(
        reml,
        rank_deficient,
        engine,
        start,
        n_jobs,
        max_iter,
        verbose,
        callback,
        n_starts,
        identifiable,
    )
    design = FormulaDesign(
        formula,
        data,
        weights=weights,
        offset=offset,
        missing=missing,
        D=D,
        groups=groups,
        residual=wanted_structure(residual, engine),
        context=context,
        subset=subset,
    )
    _warn_of_missing(design)
    return concluded(fit_design(design, options), method)


def fit(
    y: Any,
    X: Any,
    groups: Any,
    Z: Any = None,
    *,
    residual: ResidualStructure | None = None,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    D: Any = None,
    x_names: Sequence[str] | None = None,
    z_names: Sequence[Any] | None = None,
    y_name: str = "y",
    group_name: str | Sequence[str] = "group",
    missing: Missing = "raise",
    rank_deficient: RankDeficient = "drop",
    identifiable: Identifiable = "raise",
    engine: EngineName = "auto",
    start: Any = None,
    n_starts: int | None = None,
    n_jobs: int | None = None,
    max_iter: int = 200,
    verbose: int = 0,
    callback: Callable[[dict[str, Any]], None] | None = None,
    ddf: str = "satterthwaite",
    vcov: str = "model",
) -> LMMResult:
    """Fit a linear mixed model to arrays.

    Parameters
    ----------
    y : array (n,)
    X : array (n, p)
        Fixed effects, the intercept among them if there is to be one.
    groups : array (n,); or list, dict or table of such arrays
        Group of each row, in any order: integers, text or categories. Several arrays are grouping
        factors that may be nested or crossed.
    Z : array (n, q), optional
        Random effects; default: a random intercept, or none where there is a residual structure.
        For several grouping factors a list with an entry for each, None for an intercept.
    residual : ResidualStructure, optional
        Covariance structure of the residuals, made of arrays, such as ``lmmfast.OU(times)``.
    x_names, z_names : sequence of str, optional
        For several grouping factors z_names is a list like Z.
    y_name : str
    group_name : str or sequence of str
        Names of the grouping factors; the keys of a dict and the columns of a table are names.
    missing : {"raise", "drop", "exclude"}
    reml, weights, offset, D, rank_deficient, identifiable, engine, start, n_starts, n_jobs,
    max_iter, verbose, callback, ddf, vcov
        See `lmm`.

    Returns
    -------
    LMMResult

    Raises
    ------
    DataError, NotIdentifiableError

    Examples
    --------
    >>> import numpy as np, lmmfast as lf
    >>> d = lf.datasets.sleepstudy()
    >>> X = np.column_stack([np.ones(len(d)), d["Days"]])
    >>> fit = lf.fit(d["Reaction"], X, d["Subject"], Z=X)
    >>> round(fit.llf, 4)
    -871.8141
    """
    from lmmfast.design.from_arrays import ArrayDesign

    method = Method(ddf, vcov=vcov)
    options = Options(
        reml,
        rank_deficient,
        engine,
        start,
        n_jobs,
        max_iter,
        verbose,
        callback,
        n_starts,
        identifiable,
    )
    design = ArrayDesign(
        y,
        X,
        groups,
        Z,
        weights=weights,
        offset=offset,
        x_names=x_names,
        z_names=z_names,
        y_name=y_name,
        group_name=group_name,
        D=D,
        missing=missing,
        residual=wanted_structure(residual, engine),
    )
    _warn_of_missing(design)
    return concluded(fit_design(design, options), method)


def concluded(fit: LMMResult, method: Method) -> LMMResult:
    """Draw conclusions about beta by a method other than the default."""
    if method == Method():
        return fit
    return fit.inference(method.ddf, vcov=method.vcov)


def _warn_of_missing(design: Design) -> None:
    n_rows = design.n_obs + design.n_dropped
    warn_of_missing_rows(design.n_dropped, n_rows, design.missing_counts, stacklevel=4)


def wanted_structure(residual: Any, engine: str) -> ResidualStructure | None:
    """Check the type; independent residuals need no structure but with an engine for them."""
    if residual is None:
        return None
    if not isinstance(residual, ResidualStructure):
        raise TypeError(
            f"residual={residual!r} is no residual structure: pass lmmfast.AR1('visit'), "
            "lmmfast.OU('t') or another of docs/structures.md"
        )
    return residual


def fit_design(design: Design, options: Options) -> LMMResult:
    """All stages from a design to a result."""
    check_fixed_effects(design.n_obs, design.x_names, n_threads(options.n_jobs))
    try:
        if len(design.factor_names) > 1:
            return _fit_levels(design, options)
        clusters = gather(design.keys, options.n_jobs)
        if design.terms:
            check_clusters(design, clusters)
        covariance = choose_covariance(design)
        plain = design.residual is None or (design.residual.is_independent and design.terms)
        if not plain or (design.residual is not None and options.engine == "dense"):
            return _fit_residual(design, clusters, covariance, options)
        if options.engine not in ("auto", "moments", "reference"):
            kind = "residual structures: give residual=, or"
            if options.engine in ("nested", "crossed"):
                kind = "several grouping factors:"
            raise UnsupportedModelError(
                f"engine={options.engine!r} is for {kind} leave engine= out"
            )
        small = fit_small(design, clusters, covariance, options)
        if small is not None:
            return small
        data = _prepare(design, clusters, options)
        _report_dropped(design, data.keep, options)
        return fit_prepared(design, clusters, covariance, data, options)
    except EmptyEffectsError as empty:
        if options.rank_deficient == "raise":
            raise
        design = design.without_effects(empty.columns)
        warn_of_empty_effects(design, stacklevel=4)
    return fit_design(design, options)


def warn_of_empty_effects(design: Design, stacklevel: int) -> None:
    """Name the columns of Z that were left out because they are zero in all rows."""
    warnings.warn(
        f"left out columns of Z that are zero in all rows: {', '.join(design.dropped_effects)}",
        RankWarning,
        stacklevel=stacklevel,
    )


def fit_prepared(
    design: Design,
    clusters: Clusters,
    covariance: BlockCovariance,
    data: Prepared,
    options: Options,
) -> LMMResult:
    """Run the stages after packing."""
    problem = _problem(design, data, options)
    optimum = _maximise(design, clusters, data, problem, covariance, options)
    return _result(
        design,
        clusters,
        data.engine,
        data.basis,
        covariance,
        problem,
        optimum,
        stacklevel=5,
        identifiable=options.identifiable,
    )


def _fit_residual(
    design: Design, clusters: Clusters, random: BlockCovariance, options: Options
) -> LMMResult:
    """Run the stages of a model whose residuals have a structure."""
    from lmmfast.fitting.residual import ResidualFit

    fit = ResidualFit(design, clusters, random, options)
    _report_dropped(design, fit.keep, options)
    _announce(fit.engine)
    optimum = fit.maximise(evaluation_callback(options), natural_names(design.terms))
    engine = engine_at(fit.engine, fit.covariance, optimum.phi)
    result = _result(
        design,
        fit.clusters,
        engine,
        fit.basis,
        fit.covariance,
        fit.problem,
        optimum,
        stacklevel=5,
        identifiable=options.identifiable,
    )
    result._residual_model = fit.model
    return result


def _fit_levels(design: Design, options: Options) -> LMMResult:
    """Run the stages of a model with several grouping factors."""
    from lmmfast.fitting.levels import LevelsFit
    from lmmfast.fitting.nested_residual import NestedResidualFit
    from lmmfast.prediction.effects import LevelsResult

    levels, covariance = design_levels(design), choose_covariance(design)
    check_levels(design, levels)
    warn_of_implicit_nesting(levels, stacklevel=5)
    plain = design.residual is None or design.residual.is_independent
    fit: Any = (LevelsFit if plain else NestedResidualFit)(design, levels, covariance, options)
    _report_dropped(design, fit.keep, options)
    _announce(fit.engine)
    optimum = fit.maximise(evaluation_callback(options), natural_names(design.terms))
    engine = engine_at(fit.engine, fit.covariance, optimum.phi)
    result = _result(
        design,
        levels,
        engine,
        fit.basis,
        fit.covariance,
        fit.problem,
        optimum,
        stacklevel=5,
        kind=LevelsResult,
        identifiable=options.identifiable,
    )
    result._residual_model = fit.model
    return result


def _announce(engine: Any) -> None:
    """Warn of minutes that a fit will take."""
    forecast = getattr(engine, "forecast", None)
    if forecast is not None:
        forecast.warn(stacklevel=5)


def _result(
    design: Design,
    clusters: Any,
    engine: Any,
    basis: Basis,
    covariance: BlockCovariance,
    problem: Problem,
    optimum: Optimum,
    stacklevel: int,
    kind: type[LMMResult] = LMMResult,
    identifiable: str = "raise",
) -> LMMResult:
    """Judge the optimum, warn if it is none, and bring it to the user's scale."""
    certificate = certify(optimum, covariance, design.terms)
    if not certificate.converged:
        warnings.warn(
            f"{certificate}; see fit.trace. A simpler random-effects structure, or max_iter= and "
            "start=, may help",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )
    with np.errstate(all="ignore"):
        values = estimates(optimum, problem.keep, basis, covariance)
        results = np.concatenate(
            [values.theta, values.cov_beta.ravel(), 1.0 / np.atleast_1d(values.sigma2)]
        )
    check_scales(design, results, "the estimates")
    result = kind(
        design=design,
        clusters=clusters,
        engine=engine,
        basis=basis,
        covariance=covariance,
        problem=problem,
        optimum=optimum,
        estimates=values,
        certificate=certificate,
    )
    result._identifiable = identifiable
    if optimum.n_flat and certificate.converged:
        result._note_redundancy()
    if result._redundancy is not None:
        warnings.warn(result.certificate.status, NotIdentifiableWarning, stacklevel=stacklevel)
    return result


@dataclass(frozen=True)
class Prepared:
    """Data in the working basis, ready for evaluations.

    Attributes
    ----------
    gram, perp : ndarray (p + 1, p + 1)
        Cross-products of [X y], whole and beyond the span of Z.
    rank_Z : int
        Sum of the ranks of the Z_i.
    """

    engine: Engine
    basis: Basis
    gram: Array
    log_weights: float
    perp: Array
    rank_Z: int

    @property
    def keep(self) -> NDArray[np.intp]:
        """Columns of X that are linearly independent."""
        return independent_columns(self.gram[:-1, :-1], self.basis)


def prepare_design(
    design: Design, clusters: Clusters, options: Options
) -> tuple[BlockCovariance, Prepared]:
    """Run the stages up to packing, for a design that serves many responses."""
    check_fixed_effects(design.n_obs, design.x_names, n_threads(options.n_jobs))
    covariance = choose_covariance(design)
    data = _prepare(design, clusters, options)
    _report_dropped(design, data.keep, options)
    if len(data.keep) >= design.n_obs:
        raise DataError(
            f"{len(data.keep)} fixed effects for {design.n_obs} rows: there must be more rows"
        )
    return covariance, data


def choose_covariance(design: Design) -> BlockCovariance:
    """Covariance structures of the terms, for the sizes that they have."""
    sizes = tuple(len(term.names) for term in design.terms)
    if sum(sizes) > core.max_q:
        raise UnsupportedModelError(
            f"{sum(sizes)} random effects per group of {design.group_name!r}: at most {core.max_q} "
            "are supported"
        )
    for term in design.terms:
        if len(term.names) == 1 and "compound symmetry" in term.structure.name:
            raise UnsupportedModelError(
                f"compound symmetry of the single random effect {term.names[0]!r} of "
                f"{term.group!r}: it needs at least two columns; leave cs() out"
            )
    return BlockCovariance(tuple(term.structure for term in design.terms), sizes)


def _prepare(design: Design, clusters: Clusters, options: Options) -> Prepared:
    """Bring the data into the working basis, for the engine asked for."""
    excluded = np.empty(0, dtype=np.intp)
    trust_sample = options.engine != "reference"  # compression sees to it
    while True:
        basis = choose_basis(design, excluded, trust_sample)
        try:
            data = prepare_engine(design, clusters, options, basis)
        except SampleMisledError:
            trust_sample = False
            continue
        dropped = np.setdiff1d(np.arange(len(design.x_names)), data.keep)
        involved = data.basis.involved(dropped)
        if len(involved) == 0:
            return data
        # Columns that will be dropped must leave no trace in y or in other columns.
        excluded = np.union1d(excluded, dropped)


def prepare_engine(design: Design, clusters: Clusters, options: Options, basis: Basis) -> Prepared:
    """Bring the data into a basis, or one next to it where the working residual misleads."""
    if options.engine == "reference":
        return _prepare_reference(design, clusters, basis)
    threads = n_threads(options.n_jobs)
    return prepared(compress(design, clusters, basis, threads), threads)


def prepared(packed: CompressedClusters, threads: int) -> Prepared:
    """Set up the moments engine over compressed clusters."""
    engine = MomentsEngine(packed, threads)
    return Prepared(
        engine, packed.basis, packed.gram, packed.log_weights, packed.perp, packed.rank_Z
    )


def _prepare_reference(design: Design, clusters: Clusters, basis: Basis) -> Prepared:
    rows = np.arange(design.n_obs) if clusters.order is None else clusters.order
    A, Z, weights = basis.working(design.batch(rows))
    if not (np.isfinite(A).all() and np.isfinite(Z).all()):
        check_finite(design)
    log_weights = 0.0 if weights is None else float(np.log(weights).sum())
    engine = ReferenceEngine(A, Z, weights, clusters.ptr)
    return Prepared(engine, basis, engine.gram, log_weights, *engine.beside_Z())


def _report_dropped(design: Design, keep: NDArray[np.intp], options: Options) -> None:
    """Refuse columns of X that the others determine, or warn of them."""
    dropped = [name for j, name in enumerate(design.x_names) if j not in keep]
    if dropped:
        message = f"columns of X determined by the others: {', '.join(dropped)}"
        if options.rank_deficient == "raise":
            raise DataError(f"{message}; leave them out, or pass rank_deficient='drop'")
        warnings.warn(f"dropped {message}", RankWarning, stacklevel=4)


def _problem(design: Design, data: Prepared, options: Options) -> Problem:
    """Choose the columns of X and check that there is something to fit."""
    keep = data.keep
    if len(keep) >= design.n_obs:
        raise DataError(
            f"{len(keep)} fixed effects for {design.n_obs} rows: there must be more rows"
        )
    check_response(design, data.gram, keep, data.basis.y_size)
    check_within(design, data.gram, data.perp, keep, data.rank_Z, options.reml)
    return make_problem(keep, design.n_obs, options.reml, data.basis, data.log_weights)


def _maximise(
    design: Design,
    clusters: Clusters,
    data: Prepared,
    problem: Problem,
    covariance: BlockCovariance,
    options: Options,
) -> Optimum:
    """Search by the compiled loop where nobody watches, else by the one in Python."""
    start = None if options.start is None else given_start(covariance, data.basis, options.start)
    callback = evaluation_callback(options)
    if callback is None and options.n_starts is None:
        optimum = compiled_maximise(problem, covariance, data.engine, options.max_iter, start)
        if optimum is not None:
            for entry in optimum.trace:
                log_evaluation(entry)
            return optimum
    search = Search(problem, covariance, data.engine, options.max_iter, callback)
    default = covariance.phi(np.eye(covariance.q))
    point = search.begin(default, "start" if start is None else "check")
    n_flat = check_information(point, covariance, design, clusters.m, options.identifiable)
    if start is not None:
        point = search.evaluate(start, "start")
    if n_flat:
        point, reason = maximise(search, point, options.n_starts, root_steps)
    elif options.n_starts is None:
        point, reason = climb_from_known_starts(search, point)
    else:
        point, reason = maximise(search, point, options.n_starts)
    return conclude_in_the_middle(search, point, reason, n_flat, data.basis)


def evaluation_callback(options: Options) -> Callable[[dict[str, Any]], None] | None:
    """Report each evaluation to the user as asked."""
    if not options.verbose:
        return options.callback

    def report(entry: dict[str, Any]) -> None:
        print(
            f"{entry['evaluation']:3d}  {entry['step']:<8s} llf {entry['llf']:.10g}"
            f"  decrement {entry['decrement']:.3g}"
        )
        if options.callback is not None:
            options.callback(entry)

    return report
