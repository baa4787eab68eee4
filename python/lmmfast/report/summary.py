"""The printed report of a fit: model, convergence, random effects, fixed effects."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.inference.variances import covariance_errors
from lmmfast.report.text import (
    WIDTH,
    decimal_places,
    html_table,
    shorten,
    text_table,
    write_number,
    write_p,
)
from lmmfast.report.varcorr import VarCorr

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.batch.response_fit import ResponseFit
    from lmmfast.covariance.terms import Term
    from lmmfast.result import LMMResult

_MOST_NAMES = 12  # columns named in the model line of a fit to arrays
_FEW_GROUPS = 50


@dataclass(frozen=True, eq=False)
class Summary:
    """The report of a fit: print it, or take its ``tables``.

    Attributes
    ----------
    title, model, convergence : str
    facts : list of (str, str)
        Name and value: sizes, then likelihood.
    varcorr : VarCorr
    errors : list of ndarray or None
        Standard errors of the variances, as `VarCorr.lines` takes them.
    tables : dict of DataFrame
        "model" (the facts as numbers), "random_effects", "variance_parameters", "fixed_effects".
    alpha : float
        One minus the level of the intervals.
    notes : list of str
    structure : str or None
        Structure of the residuals; None: independent. Its parameters are in the table
        "residual_covariance".
    """

    title: str
    model: str
    convergence: str
    facts: list[tuple[str, str]]
    varcorr: VarCorr
    errors: list[Array] | None
    tables: dict[str, pd.DataFrame]
    alpha: float
    notes: list[str]
    structure: str | None = None

    def __str__(self) -> str:
        """Return the report as text of at most 88 columns."""
        lines = [self.title, *_wrap(self.model, "    "), "", *_two_columns(self.facts), ""]
        lines += [*_wrap(f"Convergence: {self.convergence}", "    "), ""]
        if self.varcorr.terms:
            lines += ["Random effects", *self.varcorr.lines(self.errors), ""]
        if self.structure is not None:
            lines += _wrap(f"Residual covariance: {self.structure}", "    ")
            lines += [*text_table(*self._residual_cells(), n_labels=1), ""]
        lines += ["Fixed effects"]
        lines += text_table(*self._fixed_cells(), n_labels=1) if self._has_fixed else ["none"]
        lines += ["", *(line for note in self.notes for line in _wrap(f"- {note}", "  "))]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        facts = [
            [*left, *right] for left, right in zip(*_halves(self.facts, ("", "")), strict=True)
        ]
        rows = "".join(
            "<tr>"
            + "".join(
                f'<{tag} style="text-align:left">{escape(cell)}</{tag}>'
                for tag, cell in zip(("th", "td", "th", "td"), row, strict=True)
            )
            + "</tr>"
            for row in facts
        )
        fixed = html_table(*self._fixed_cells(), n_labels=1) if self._has_fixed else "<p>none</p>"
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f'<div class="lmmfast"><p><b>{escape(self.title)}</b><br>'
            f"<code>{escape(self.model)}</code></p><table>{rows}</table>"
            f"<p>Convergence: {escape(self.convergence)}</p>"
            f"{self._random_html()}"
            f"{self._residual_html()}"
            f"<p><b>Fixed effects</b></p>{fixed}<ul>{notes}</ul></div>"
        )

    def _random_html(self) -> str:
        if not self.varcorr.terms:
            return ""
        return f"<p><b>Random effects</b></p>{self.varcorr.html(self.errors)}"

    def _residual_html(self) -> str:
        if self.structure is None:
            return ""
        table = html_table(*self._residual_cells(), n_labels=1)
        return f"<p><b>Residual covariance: {escape(self.structure)}</b></p>{table}"

    def _residual_cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table of the residuals' parameters."""
        rows = []
        table = self.tables["residual_covariance"]
        for name, values in zip(table.index, table.to_numpy(dtype=float), strict=True):
            places = decimal_places([values[1]], [values[0]])
            rows.append([str(name), *(write_number(float(value), places) for value in values)])
        low, high = (f"{100 * tail:.4g}%" for tail in (self.alpha / 2, 1 - self.alpha / 2))
        return ["", "Estimate", "Std.Err.", f"[{low}", f"{high}]"], rows

    @property
    def _has_fixed(self) -> bool:
        return len(self.tables["fixed_effects"]) > 0

    def _fixed_cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table of fixed effects."""
        table = self.tables["fixed_effects"]
        common = decimal_places(table["std_error"], [np.abs(table["estimate"]).max()])
        with_df = bool((~np.isinf(table["df"])).any())
        rows = []
        for name, values in zip(table.index, table.to_numpy(dtype=float), strict=True):
            by_column = dict(zip(table.columns, map(float, values), strict=True))
            estimate, error = by_column["estimate"], by_column["std_error"]
            interval = by_column["conf_low"], by_column["conf_high"]
            places = decimal_places([error], [estimate]) if common is None else common
            numbers = [write_number(value, places) for value in (estimate, error, *interval)]
            test = [f"{by_column['statistic']:.2f}", write_p(by_column["p_value"])]
            if with_df:
                test.insert(1, write_df(by_column["df"]))
            rows.append([str(name), *numbers[:2], *test, *numbers[2:]])
        low, high = (f"{100 * tail:.4g}%" for tail in (self.alpha / 2, 1 - self.alpha / 2))
        test = ["t", "df", "P>|t|"] if with_df else ["z", "P>|z|"]
        return ["", "Estimate", "Std.Err.", *test, f"[{low}", f"{high}]"], rows


def write_df(df: float) -> str:
    """Write degrees of freedom: one decimal place of few, whole numbers of many."""
    return f"{df:.1f}" if df < 1000 else f"{df:.0f}"


def summarise(fit: LMMResult, alpha: float = 0.05) -> Summary:
    """Make the report of a fit; the random effects are not computed for it.

    Parameters
    ----------
    fit : LMMResult
    alpha : float
        One minus the level of the intervals.
    """
    import pandas as pd

    fit = _with_known_df(fit)
    fixed = fit.tidy(alpha)
    structure = None if fit.residual.is_independent else fit.residual
    varcorr, cov = fit.varcorr, _theta_cov(fit)
    random, theta = varcorr.to_frame(), fit.theta
    errors = None
    if cov is not None:
        entries = covariance_errors(varcorr.terms, varcorr.blocks, cov)
        of_theta = theta_errors(fit)
        residual = np.array([of_theta.get(f"var({name})", np.nan) for name in varcorr.residuals])
        errors = [*(np.diag(block) for block in entries), residual]
        random["std_error"] = np.concatenate([*map(_as_listed, entries), residual])
    model = {
        "nobs": fit.nobs,
        "n_dropped": fit.n_dropped,
        **_group_numbers(fit),
        "llf": fit.llf,
        "deviance": fit.deviance,
        "aic": fit.aic,
        "bic": fit.bic,
    }
    return Summary(
        title=f"Linear mixed model fitted by {_METHODS[fit.method]}",
        model=_model_line(fit),
        convergence=str(fit.certificate),
        facts=_facts(fit),
        varcorr=varcorr,
        errors=errors,
        tables={
            "model": pd.DataFrame({"value": pd.Series(model)}),
            "random_effects": random,
            "variance_parameters": pd.DataFrame(
                {"estimate": theta, "std_error": theta_errors(fit)}
            ),
            "fixed_effects": fixed,
            **({} if structure is None else {"residual_covariance": _residual_table(fit, alpha)}),
        },
        alpha=alpha,
        notes=_notes(fit, cov),
        structure=None if structure is None else str(structure),
    )


def summarise_response(fit: ResponseFit, alpha: float) -> Summary:
    """Make the report of one of many responses."""
    import pandas as pd

    model = {
        "nobs": fit.nobs,
        "ngroups": fit.ngroups,
        "llf": fit.llf,
        "deviance": fit.deviance,
        "aic": fit.aic,
        "bic": fit.bic,
    }
    groups = f"{fit.ngroups:,} ({fit.group_name})"
    terms = fit.varcorr.terms
    return Summary(
        title=f"Linear mixed model fitted by {_METHODS[fit.method]}",
        model=_arrays_line(fit.y_name, list(fit.params.index), terms, fit.group_name),
        convergence=fit.status,
        facts=[("Rows", f"{fit.nobs:,}"), ("Groups", groups), *_likelihood_facts(fit)],
        varcorr=fit.varcorr,
        errors=None,
        tables={
            "model": pd.DataFrame({"value": pd.Series(model)}),
            "random_effects": fit.varcorr.to_frame(),
            "variance_parameters": pd.DataFrame({"estimate": fit.theta}),
            "fixed_effects": fit.tidy(alpha),
        },
        alpha=alpha,
        notes=["One of many responses: lmmfast.fit has all of it.", _wald_note(fit.ngroups)],
    )


def _group_numbers(fit: LMMResult) -> dict[str, float]:
    """Number and sizes of the groups; of several grouping factors with their names."""
    numbers: dict[str, float] = {}
    for name, (m, (smallest, mean, largest)) in fit._grouping.items():
        of = f"[{name}]" if len(fit._grouping) > 1 else ""
        numbers[f"ngroups{of}"] = m
        numbers[f"min_group_size{of}"] = smallest
        numbers[f"mean_group_size{of}"] = mean
        numbers[f"max_group_size{of}"] = largest
    return numbers


_METHODS = {"ML": "maximum likelihood (ML)", "REML": "restricted maximum likelihood (REML)"}


def _residual_table(fit: LMMResult, alpha: float) -> pd.DataFrame:
    """Rows of `LMMResult.variance_table` that belong to the residual structure."""
    table = _or_without_errors(fit, alpha)
    table = table.iloc[fit._covariance.n_random :]
    return table if fit._redundancy is None else table.drop(fit._redundancy.names, errors="ignore")


def _or_without_errors(fit: LMMResult, alpha: float) -> pd.DataFrame:
    import pandas as pd

    try:
        return fit.variance_table(alpha)
    except (DataError, np.linalg.LinAlgError):
        nothing = dict.fromkeys(("std_error", "conf_low", "conf_high"), np.nan)
        return pd.DataFrame({"estimate": fit.theta, **nothing})


def _theta_cov(fit: LMMResult) -> Array | None:
    """Covariance matrix of theta; None if it cannot be had any more."""
    try:
        return fit.theta_cov.to_numpy()
    except (DataError, np.linalg.LinAlgError):
        return None


def theta_errors(fit: LMMResult) -> pd.Series[float]:
    """Return the standard errors of theta; NaN where they cannot be had."""
    import pandas as pd

    cov = _theta_cov(fit)
    errors = np.full(len(fit.theta), np.nan) if cov is None else np.sqrt(np.diag(cov))
    return pd.Series(errors, index=fit.theta_names)


def _as_listed(block: Array) -> Array:
    """Entries of a term in the order of `VarCorr.to_frame`: diagonal, then upper triangle."""
    return np.concatenate([np.diag(block), block[np.triu_indices(len(block), 1)]])


def _model_line(fit: LMMResult) -> str:
    """Return the formula as written, or the names of the arrays' columns."""
    from lmmfast.formula.spec import FormulaSpec

    if isinstance(fit.spec, FormulaSpec):
        return " ".join(fit.spec.formula.text.split())
    return _arrays_line(fit.y_name, fit.x_names, fit.terms, fit.group_name)


def _arrays_line(y_name: str, x_names: Sequence[str], terms: Sequence[Term], group: str) -> str:
    """Return the names of the arrays' columns as a formula."""
    names = [*x_names]
    if len(names) > _MOST_NAMES:
        names = [*names[:_MOST_NAMES], f"... ({len(x_names)} columns)"]
    random = [
        "("
        + " + ".join("1" if name == "Intercept" else name for name in t.names)
        + f" | {t.group})"
        for t in terms
    ] or [f"( | {group})"]
    return f"{y_name} ~ {' + '.join([' + '.join(names) or '0', *random])}   [arrays]"


def _facts(fit: LMMResult) -> list[tuple[str, str]]:
    rows = f"{fit.nobs:,}" + (f" ({fit.n_dropped:,} dropped)" if fit.n_dropped else "")
    return [("Rows", rows), *_group_facts(fit), *_likelihood_facts(fit)]


def _likelihood_facts(fit: LMMResult | ResponseFit) -> list[tuple[str, str]]:
    """Return number of parameters and likelihood in words."""
    n_fixed = len(fit.params)
    return [
        ("Parameters", f"{n_fixed} fixed, {fit.n_params - n_fixed} of variances"),
        ("Log-likelihood" if fit.method == "ML" else "REML log-likelihood", f"{fit.llf:.4f}"),
        ("Deviance" if fit.method == "ML" else "REML deviance", f"{fit.deviance:.4f}"),
        ("AIC", f"{fit.aic:.4f}"),
        ("BIC", f"{fit.bic:.4f}"),
    ]


def _group_facts(fit: LMMResult) -> list[tuple[str, str]]:
    """Number and sizes of the groups in words."""
    facts = []
    several = len(fit._grouping) > 1
    for name, (m, (smallest, mean, largest)) in fit._grouping.items():
        same = smallest == largest
        size = f"{smallest} in each" if same else f"{smallest} to {largest}, mean {mean:.2f}"
        if several:
            facts.append((f"Groups of {name}", f"{m:,} (rows: {size})"))
        else:
            facts += [("Groups", f"{m:,} ({name})"), ("Rows per group", size)]
    return facts


def _notes(fit: LMMResult, cov: Array | None) -> list[str]:
    notes = []
    if fit.n_dropped:
        columns = ", ".join(f"{name} ({count:,})" for name, count in fit.missing_counts.items())
        notes.append(f"{_count(fit.n_dropped, 'row')} dropped for missing values in {columns}.")
    if fit.dropped_columns:
        notes.append(
            "Dropped from the fixed effects, because other columns determine them: "
            f"{', '.join(fit.dropped_columns)}."
        )
    if fit.dropped_effects:
        notes.append(
            "Left out of the random effects, because their columns are zero in all rows: "
            f"{', '.join(fit.dropped_effects)}."
        )
    if fit.weighted:
        notes.append("Weighted: the residual variance is that of a row of weight one.")
    for term in fit.terms:
        if term.structure.name != "unstructured" and len(term.names) > 1:
            names = ", ".join(term.names)
            notes.append(f"Covariance structure of {names} by {term.group}: {term.structure.name}.")
    if fit._redundancy is not None:
        values = fit._redundancy.values(fit._estimates.theta)
        notes += [
            f"Known is {name} = {value:.6g}; its parts are in the middle of what they may be."
            for name, value in zip(fit._redundancy.names, values, strict=True)
        ]
    if cov is None:
        notes.append("Standard errors of the variances need the data, which this fit has let go.")
    elif fit.certificate.on_boundary:
        notes.append("SE(Var.) is left out on the boundary, where it would mean nothing.")
    return [*notes, _method_note(fit)]


def _with_known_df(fit: LMMResult) -> LMMResult:
    """Return the fit, or, where degrees of freedom need data that it let go, its z statistics."""
    try:
        _ = fit.df
    except DataError:
        return fit.inference("normal")
    return fit


#: What degrees of freedom are called in the notes.
_DDF_NOTES = {
    "satterthwaite": "Satterthwaite's degrees of freedom",
    "between-within": "degrees of freedom between and within subjects",
    "inner-outer": "the degrees of freedom of the level at which a column varies",
    "residual": "n - p degrees of freedom",
}


def _method_note(fit: LMMResult) -> str:
    """Say how the conclusions about the fixed effects are drawn."""
    method = fit._method
    if method.vcov != "model":
        return _robust_note(fit)
    if method.ddf == "normal":
        return _wald_note(min(m for m, _ in fit._grouping.values()))
    if np.isnan(fit.df).any():
        return "Degrees of freedom are not to be had where the likelihood is not finite."
    boundary = ""
    if method.needs_totals and fit.certificate.on_boundary:
        boundary = ", from the expected information, as an estimate lies on the boundary"
    if method.adjusts_errors:
        linear = ", without second derivatives" if method.ddf.endswith("linear") else ""
        return f"Standard errors and degrees of freedom by Kenward and Roger{linear}{boundary}."
    note = f"t with {_DDF_NOTES[method.ddf]}{boundary}"
    if method.ddf == "satterthwaite" and fit.method == "REML":
        note += "; inference('kenward-roger') adjusts standard errors too"
    return f"{note}."


def _robust_note(fit: LMMResult) -> str:
    """Say what robust standard errors are, and what they are as sure of."""
    method = fit._method
    clusters = "the clusters given" if method.cluster is not None else "groups"
    tests = {
        "satterthwaite": "t with Satterthwaite's degrees of freedom",
        "residual": "t with n - p degrees of freedom",
        "between-within": "t with degrees of freedom between and within groups",
        "inner-outer": "t with degrees of freedom by the level at which a column varies",
    }.get(method.ddf, "z from the normal distribution")
    return f"Standard errors robust by {clusters} ({method.vcov}), {tests}."


def _wald_note(fewest: int) -> str:
    """Say what p-values and intervals are, with this many groups."""
    wald = "P-values and intervals are Wald's, from the normal distribution"
    if fewest < _FEW_GROUPS:
        wald += f": with {_count(fewest, 'group')}, read them as somewhat too sure"
    return f"{wald}."


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _halves(
    facts: Sequence[tuple[str, str]], filler: tuple[str, str]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    half = (len(facts) + 1) // 2
    return list(facts[:half]), [*facts[half:], *[filler] * (2 * half - len(facts))]


def _two_columns(facts: Sequence[tuple[str, str]]) -> list[str]:
    """Facts in two columns where they fit, else in one."""
    left, right = _halves(facts, ("", ""))
    name, value = (max(len(fact[k]) for fact in left) for k in (0, 1))
    right_name, number = (max(len(fact[k]) for fact in right) for k in (0, 1))
    if name + value + right_name + number + 8 > WIDTH:
        room = WIDTH - 2 - max(value, number)
        names = [shorten(k, room) for k, _ in facts]
        name = max(map(len, names))
        return [f"{k:<{name}}  {v}" for k, (_, v) in zip(names, facts, strict=True)]
    return [
        f"{a:<{name}}  {b:<{value}}    {c:<{right_name}}  {d:>{number}}"
        for (a, b), (c, d) in zip(left, right, strict=True)
    ]
