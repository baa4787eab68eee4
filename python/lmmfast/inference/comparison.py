"""Several fits side by side: likelihoods, information criteria, likelihood-ratio tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK
from lmmfast.data.columns import Column
from lmmfast.design.design import Design
from lmmfast.errors import DataError
from lmmfast.formula.spec import FormulaSpec
from lmmfast.inference.likelihood_ratio import Reference
from lmmfast.inference.nesting import cautions, covariance_nested
from lmmfast.result import LMMResult

if TYPE_CHECKING:
    import pandas as pd

#: What of a column of unit length may lie beyond the span of others that determine it.
_BEYOND = 1e-8
#: A likelihood that is lower by less than this is so by rounding.
_ROUNDING = 1e-6


def compare(
    *fits: Any, test: str = "chisq", n_sim: int = 10_000, B: int = 1000, seed: Any = 1
) -> pd.DataFrame:
    """Compare fits to the same rows of the same response.

    Parameters
    ----------
    *fits : LMMResult, or one list or dict of them
        In the order in which they are to be tested: each against the one before it. The keys of a
        dict are the names.
    test : {"chisq", "mixture", "exact", "bootstrap"}
        Where p is from: the chi-squared distribution; where one more random effect has a variance
        of zero in the smaller model, half chi-squared with the degrees of freedom of its
        covariances and half with one more (Stram and Lee 1994), and where several have, the
        chi-bar-squared distribution, simulated; or, of a single variance by REML
        against none (``groups="g", residual=lmmfast.Independent()``), draws from the exact
        distribution (Crainiceanu and Ruppert 2004, as RLRsim). Others are tested by chi-squared,
        and the note says so. "bootstrap" draws responses from the smaller model and fits both to
        each (Halekoh and Højsgaard 2014, as pbkrtest's PBmodcomp), whatever the models are: p is
        (1 + the number of statistics as large) / (1 + B). The fits must hold their data.
    n_sim, B
        Number of draws of "exact" and "mixture", and of replicates of "bootstrap".
    seed
        Of all three, as of ``numpy.random.default_rng``.

    Returns
    -------
    DataFrame
        A row per fit: ``nobs``, ``n_params`` (fixed effects and variance parameters), ``llf``,
        ``deviance`` (-2 llf), ``aic``, ``bic``, ``delta_aic`` (to the lowest), and the
        likelihood-ratio test against the row above, where one of the two is known to be a special
        case of the other: ``chisq``, ``df``, ``p``; ``note`` says why there is no test, or what to
        make of it.

    Raises
    ------
    TypeError, ValueError
        Something is not a fit; no fits.
    DataError
        The fits have different responses or rows, or cannot be compared: by ML and by REML, or by
        REML with different fixed effects.

    Notes
    -----
    p is from the chi-squared distribution. Where the smaller model puts a variance on the boundary
    of its range, at zero, the statistic tends to be smaller than that and p is conservative: for
    one more variance, about twice too large (Self and Liang 1987, JASA 82, 605-610; Stram and Lee
    1994, Biometrics 50, 1171-1177). The note says so; ``test="mixture"`` corrects it.

    Nesting is decided from the columns of X, the random-effects terms of each grouping factor (all
    terms of the smaller model must be in the larger one) and the residual structures:
    independent in compound symmetry in Toeplitz in unstructured, AR(1) in Toeplitz and
    ante-dependence over the same visits, one variance in several, without nugget in with nugget,
    a random intercept in a random slope or in a marginal structure that holds it. Pairs beyond such
    rules have no test; AIC and BIC compare them all the same.

    Fits that hold no data (saved, stripped, appended to) are recognised by a checksum of the
    response, where there is one, and compared by the names of their columns.

    Examples
    --------
    >>> import lmmfast as lf
    >>> d = lf.datasets.sleepstudy()
    >>> fits = [lf.lmm(f"Reaction ~ Days + ({z} | Subject)", d) for z in ("1", "Days")]
    >>> lf.compare(fits)["df"].to_list()
    [<NA>, 2]
    """
    import pandas as pd

    reference = Reference(test, n_sim, seed, B)
    named = _named(fits)
    first = next(iter(named))
    for name in named:
        _check_comparable(first, name, named)
    rows, previous = [], None
    for fit in named.values():
        rows.append((*_numbers(fit), *_test(previous, fit, reference)))
        previous = fit
    columns = [*_NUMBERS, "chisq", "df", "p", "note"]
    table = pd.DataFrame(rows, index=list(named), columns=columns)
    table.insert(6, "delta_aic", table["aic"] - table["aic"].min())
    return table.astype({"df": "Int64"})


_NUMBERS = ("nobs", "n_params", "llf", "deviance", "aic", "bic")
Test = tuple[float, int | None, float, str]


def _numbers(fit: LMMResult) -> tuple[int, int, float, float, float, float]:
    return fit.nobs, fit.n_params, fit.llf, fit.deviance, fit.aic, fit.bic


def _named(fits: tuple[Any, ...]) -> dict[str, LMMResult]:
    """Fits by name; without names they are called by what tells them apart."""
    given: Any = fits[0] if len(fits) == 1 and not isinstance(fits[0], LMMResult) else fits
    if isinstance(given, Mapping):
        named = {str(name): fit for name, fit in given.items()}
        found = list(named.values())
    elif isinstance(given, Iterable) and not isinstance(given, str):
        named, found = {}, list(given)
    else:
        named, found = {}, [given]
    for fit in found:
        if not isinstance(fit, LMMResult):
            raise TypeError(f"compare takes fits of lmmfast.lmm and lmmfast.fit, not {fit!r}")
    if not found:
        raise ValueError("compare needs at least one fit")
    return named or dict(zip(_labels(found), found, strict=True))


def _labels(fits: list[LMMResult]) -> list[str]:
    """Formula, residual structure, or both: what differs; numbered where that does not tell."""
    models = [_model(fit) for fit in fits]
    structures = [str(fit.residual) for fit in fits]
    if len(set(structures)) == 1:
        labels = models
    elif len(set(models)) == 1:
        labels = structures
    else:
        labels = [f"{model}, {text}" for model, text in zip(models, structures, strict=True)]
    if len(set(labels)) < len(labels):
        labels = [f"{k + 1}: {label}" for k, label in enumerate(labels)]
    return labels


def _model(fit: LMMResult) -> str:
    if isinstance(fit.spec, FormulaSpec):
        return fit.spec.formula.text
    return f"{fit.y_name} ~ {' + '.join(fit.x_names)}"


# -- whether likelihoods can be compared at all ----------------------------------------------------


def _check_comparable(first: str, name: str, fits: dict[str, LMMResult]) -> None:
    a, b = fits[first], fits[name]
    pair = f"{first!r} and {name!r}"
    if a.y_name != b.y_name:
        raise DataError(
            f"{pair} have different responses, {a.y_name!r} and {b.y_name!r}: their likelihoods "
            "cannot be compared"
        )
    if a.nobs != b.nobs:
        raise DataError(
            f"{pair} use different rows, {_rows(a)} and {_rows(b)}: fit both to the rows that are "
            "complete for both"
        )
    if None not in (a._response_sum, b._response_sum) and a._response_sum != b._response_sum:
        raise DataError(
            f"{pair} use different values of {a.y_name!r}: other rows, or another response of the "
            "same name"
        )
    if a.method != b.method:
        raise DataError(
            f"{pair} are fitted by {a.method} and {b.method}: their likelihoods cannot be "
            "compared; fit all with the same reml="
        )
    if a.method == "REML" and not _same_fixed_effects(a, b):
        raise DataError(
            f"{pair} are REML fits with different fixed effects, and restricted likelihoods are of "
            "different contrasts of the data then: fit them with reml=False"
        )


def _rows(fit: LMMResult) -> str:
    missing = ", ".join(repr(name) for name in fit.missing_counts)
    return f"{fit.nobs}" + (f" ({fit.n_dropped} miss a value of {missing})" if missing else "")


def _same_fixed_effects(a: LMMResult, b: LMMResult) -> bool:
    """Whether the spans of X are the same, and |X'X|, which the restricted likelihood has in it."""
    data = _aligned(a, b)
    if data is None:
        return a.x_names == b.x_names
    R, p = _joint_root(a, b, *data), len(a.x_names)
    same_span = _determined(R[:, :p], R[:, p:]) and _determined(R[:, p:], R[:, :p])
    return same_span and abs(_log_det(R[:, :p]) - _log_det(R[:, p:])) < _BEYOND


def _log_det(R: Array) -> float:
    """Half of log|R'R|."""
    return float(np.linalg.slogdet(_root(R))[1])


def _rows_held(fit: LMMResult) -> Design | None:
    """Return the design, if it holds its rows."""
    if fit._design is None:
        return None
    fit._check_data()
    try:
        fit._design.batch(slice(0, 1))
    except DataError:
        return None
    return fit._design


def _aligned(a: LMMResult, b: LMMResult) -> tuple[Design, Design] | None:
    """Both designs, if they hold the same rows in the same order."""
    one, other = _rows_held(a), _rows_held(b)
    if one is None or other is None:
        return None
    same = all(
        np.array_equal(s.y, t.y) for s, t in zip(_batches(one), _batches(other), strict=True)
    )
    return (one, other) if same else None


def _batches(design: Design) -> Iterator[Any]:
    for start in range(0, design.n_obs, CHUNK):
        yield design.batch(slice(start, min(start + CHUNK, design.n_obs))).as_float()


def _root(A: Array) -> Array:
    """R factor."""
    return np.asarray(np.linalg.qr(A, mode="r"))


def _joint_root(a: LMMResult, b: LMMResult, one: Design, other: Design) -> Array:
    """R factor of [X_a X_b], the columns that were kept."""
    R = np.empty((0, len(a.x_names) + len(b.x_names)))
    for s, t in zip(_batches(one), _batches(other), strict=True):
        columns = [*(s.X[j] for j in a._keep), *(t.X[j] for j in b._keep)]
        if columns:
            R = _root(np.vstack([R, np.column_stack(columns)]))
    return R


def _determined(R_small: Array, R_big: Array) -> bool:
    """Whether the columns of one matrix lie in the span of those of another."""
    k = R_big.shape[1]
    R = _root(np.hstack([R_big, R_small]))[:, k:]
    beyond = np.linalg.norm(R[k:], axis=0)
    return bool((beyond <= _BEYOND * np.linalg.norm(R, axis=0)).all())


# -- likelihood-ratio tests ------------------------------------------------------------------------


def _test(before: LMMResult | None, fit: LMMResult, reference: Reference) -> Test:
    """chisq, df, p and the note."""
    failed = "" if fit.converged else "not converged"
    if before is None:
        return np.nan, None, np.nan, failed
    small, big = sorted((before, fit), key=lambda f: f.n_params)
    reason, notes = _why_not(small, big), []
    chisq, df = 2 * (big.llf - small.llf), big.n_params - small.n_params
    if not reason and chisq < -_ROUNDING * max(1.0, abs(big.llf)):
        reason = "no test: the larger model has the lower llf"
    if not reason:
        notes = cautions(small, big)
    p = np.nan
    if not reason:
        chisq = max(chisq, 0.0)
        p, notes = reference.p_value(small, big, chisq, df, notes)
    text = "; ".join(part for part in (failed, reason, *notes) if part)
    return (np.nan, None, p, text) if reason else (chisq, df, p, text)


def _why_not(small: LMMResult, big: LMMResult) -> str:
    """Why there is no test; empty: there is one."""
    if small.n_params == big.n_params:
        return "not nested: as many parameters"
    data = _aligned(small, big)
    differs = _differing_column(small, big, *data) if data else _unseen(small, big)
    if differs:
        return differs
    if data is None:
        nested = set(small.x_names) <= set(big.x_names)
    else:
        R, p = _joint_root(small, big, *data), len(small.x_names)
        nested = _determined(R[:, :p], R[:, p:])
    if not nested:
        return "not nested: fixed effects"
    if not covariance_nested(small, big):
        return "not known to be nested: covariance models"
    return ""


def _unseen(a: LMMResult, b: LMMResult) -> str:
    """Say what cannot be checked without the data."""
    if a.weighted or b.weighted:
        return "no test: the weights are gone with the data"
    return ""


def _differing_column(a: LMMResult, b: LMMResult, one: Design, other: Design) -> str:
    """Name the first column that both models use and that is not the same in both."""
    for s, t in zip(_batches(one), _batches(other), strict=True):
        for role in ("weights", "offset"):
            if not _same(getattr(s, role), getattr(t, role)):
                return f"not nested: different {role}"
        z = dict(zip(_effects(b), t.Z, strict=True))
        for effect, values in zip(_effects(a), s.Z, strict=True):
            if effect in z and not np.array_equal(values, z[effect]):
                return f"no test: {effect[1]!r} of Z differs between them"
    columns = other.residual_columns
    for name, column in one.residual_columns.items():
        if name in columns and not np.array_equal(_values(column), _values(columns[name])):
            return f"no test: {name!r} differs between them"
    return ""


def _effects(fit: LMMResult) -> list[tuple[str, str]]:
    """Grouping factor and name of each column of Z."""
    return [(term.group, name) for term in fit.terms for name in term.names]


def _same(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b)


def _values(column: Column) -> NDArray[Any]:
    return column.values if column.levels is None else np.asarray(column.levels)[column.values]


def response_sum(design: Design) -> int:
    """Checksum of the response, whatever the order of the rows.

    Raises
    ------
    DataError
        The design holds no rows.
    """
    total = 0
    for start in range(0, design.n_obs, CHUNK):
        y = design.batch(slice(start, min(start + CHUNK, design.n_obs))).as_float().y
        bits = (np.ascontiguousarray(y) + 0.0).view(np.uint64)  # -0.0 is 0.0
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        total += int((bits ^ (bits >> np.uint64(31))).sum(dtype=np.uint64))
    return total % (1 << 64)
