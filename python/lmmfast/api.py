"""The two ways in: `lmm` (formula) and `fit` (arrays)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmmfast.design.design import Design, warn_of_missing_rows
from lmmfast.errors import DataError
from lmmfast.fitting.options import Options
from lmmfast.fitting.pipeline import fit_design
from lmmfast.inference.methods import Method
from lmmfast.literals import EngineName, Identifiable, Missing, RankDeficient
from lmmfast.progress import Reporter
from lmmfast.residual.structure import ResidualStructure
from lmmfast.result import LMMResult
from lmmfast.streaming.scan import Scan, check_streamed, is_stream, scan


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
    progress: Callable[[dict[str, Any]], None] | bool = False,
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
    data : table, or what `scan` takes
        pandas, polars or pyarrow table, or a dict of one-dimensional arrays. Or Parquet files
        (``"data/*.parquet"``), a LazyFrame or another stream, which are read in pieces: see `scan`
        for options, and docs/production.md.
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
    progress : callable or bool
        Called with a dict as the stages "read", "pack" and "search" go on: ``stage``, ``done``,
        ``of`` (None where nobody knows), ``unit``, ``seconds``, ``ended``. True: bars by tqdm, if
        that is installed. `StopIteration` is as in ``callback``. The logger "lmmfast" has a record
        of each stage at level INFO anyway.
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
        Reporter(progress),
    )
    structure = wanted_structure(residual, engine)
    if is_stream(data):
        check_streamed(structure, subset, weights, offset, engine)
        fitted = _fit_stream(
            formula,
            data,
            options,
            weights=weights,
            offset=offset,
            missing=missing,
            D=D,
            groups=groups,
            context=context,
        )
        return concluded(fitted, method)
    with options.reporter.stage("read", "rows") as reading:
        design = FormulaDesign(
            formula,
            data,
            weights=weights,
            offset=offset,
            missing=missing,
            D=D,
            groups=groups,
            residual=structure,
            context=context,
            subset=subset,
        )
        reading.advance(design.n_obs)
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
    progress: Callable[[dict[str, Any]], None] | bool = False,
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
    max_iter, verbose, callback, progress, ddf, vcov
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
        Reporter(progress),
    )
    with options.reporter.stage("read", "rows") as reading:
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
        reading.advance(design.n_obs)
    _warn_of_missing(design)
    return concluded(fit_design(design, options), method)


def _fit_stream(formula: str, data: Any, options: Options, **model: Any) -> LMMResult:
    try:
        import pyarrow
    except ImportError:
        pyarrow = None
    if pyarrow is None or not hasattr(pyarrow.RecordBatchReader, "from_stream"):
        raise DataError(
            "data that are read in pieces need pyarrow 15 or later: "
            "pip install 'lmmfast[streaming]'"
        )
    from lmmfast.streaming.fit import fit_stream

    return fit_stream(formula, data if isinstance(data, Scan) else scan(data), options, **model)


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
