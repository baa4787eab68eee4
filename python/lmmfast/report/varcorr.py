"""Variances and correlations of the random effects, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.terms import Term
from lmmfast.report.text import WIDTH, decimal_places, html_table, shorten, text_table, write_number

if TYPE_CHECKING:
    import pandas as pd

# Terms with more effects have their correlations in a table of their own.
_INLINE_EFFECTS = 4


@dataclass(frozen=True, eq=False)
class VarCorr:
    """Covariance matrices of the random effects and the residual variance.

    ``cov``, ``sd`` and ``corr`` are those of all effects of a group; ``varcorr[0]`` is the first
    term alone, ``varcorr["infant"]`` the terms with that grouping factor.

    Attributes
    ----------
    terms : tuple of Term
    blocks : list of ndarray (q_t, q_t)
        D of each term.
    scale : float
        Residual variance, or the first of them.
    residuals : dict of str to float
        Residual variances by name; several where they differ by level. With a nugget they are those
        of the measurement error.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> fit.varcorr
    Group     Effect     Variance  Std.Dev.  Corr.
    Subject   Intercept    612.09    24.740
              Days          35.07     5.922  0.066
    Residual               654.94    25.592
    >>> fit.varcorr.sd.round(3).to_dict()
    {'Intercept': 24.74, 'Days': 5.922}
    """

    terms: tuple[Term, ...]
    blocks: list[Array]
    scale: float
    residuals: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.residuals:
            object.__setattr__(self, "residuals", {"Residual": self.scale})

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""
        return float(np.sqrt(self.scale))

    @property
    def names(self) -> list[str]:
        """Names of the effects of all terms (q,)."""
        return [name for term in self.terms for name in term.names]

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance matrix D of the effects of a group (q, q), zero between terms."""
        return self._frame(self._D)

    @property
    def sd(self) -> pd.Series[float]:
        """Standard deviations of the effects (q,)."""
        import pandas as pd

        return pd.Series(np.sqrt(np.diag(self._D)), index=self.names)

    @property
    def corr(self) -> pd.DataFrame:
        """Correlations of the effects (q, q); NaN beside a variance of zero."""
        return self._frame(correlation(self._D))

    @property
    def _D(self) -> Array:
        ends = np.cumsum([len(block) for block in self.blocks])
        D = np.zeros((sum(map(len, self.blocks)),) * 2)
        for block, end in zip(self.blocks, ends, strict=True):
            D[end - len(block) : end, end - len(block) : end] = block
        return D

    def _frame(self, matrix: Array) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(matrix, index=self.names, columns=self.names)

    def __len__(self) -> int:
        """Count the terms."""
        return len(self.terms)

    def __getitem__(self, key: int | str) -> VarCorr:
        """Return a term by its number, or the terms of a grouping factor by its name.

        Raises
        ------
        IndexError, KeyError
        """
        if isinstance(key, str):
            chosen = [k for k, term in enumerate(self.terms) if term.group == key]
            if not chosen:
                groups = ", ".join(dict.fromkeys(repr(term.group) for term in self.terms))
                raise KeyError(f"no random effects by {key!r}: there are {groups}")
        else:
            chosen = [range(len(self.terms))[key]]
        terms = tuple(self.terms[k] for k in chosen)
        return VarCorr(terms, [self.blocks[k] for k in chosen], self.scale, self.residuals)

    def __iter__(self) -> Iterator[VarCorr]:
        """Go through the terms."""
        return (self[k] for k in range(len(self)))

    def to_frame(self) -> pd.DataFrame:
        """One row a variance or covariance: group, var1, var2, vcov, sdcor (as in lme4)."""
        import pandas as pd

        rows: list[tuple[str, str | None, str | None, float, float]] = []
        for term, D in zip(self.terms, self.blocks, strict=True):
            corr = correlation(D)
            for a, name in enumerate(term.names):
                rows.append((term.group, name, None, D[a, a], np.sqrt(D[a, a])))
            for a in range(len(D)):
                for b in range(a + 1, len(D)):
                    rows.append((term.group, term.names[a], term.names[b], D[b, a], corr[b, a]))
        rows += [(name, None, None, v, float(np.sqrt(v))) for name, v in self.residuals.items()]
        return pd.DataFrame(rows, columns=["group", "var1", "var2", "vcov", "sdcor"])

    def lines(self, errors: Sequence[Array] | None = None) -> list[str]:
        """Rows of the printed table.

        Parameters
        ----------
        errors : sequence of ndarray, optional
            Standard errors of the variances of each term (q_t,), then those of the residual
            variances; NaN where there is none.
        """
        out = text_table(*self._cells(errors), n_labels=2)
        for term, D in zip(self.terms, self.blocks, strict=True):
            if _has_correlations(term) and len(D) > _INLINE_EFFECTS:
                out += ["", f"Correlations by {term.group}", *text_table(*_matrix(term, D), 1)]
        return out

    def _cells(self, errors: Sequence[Array] | None) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table of variances."""
        variances = np.concatenate([*map(np.diag, self.blocks), [*self.residuals.values()]])
        places, sd_places = decimal_places(variances), decimal_places(np.sqrt(variances))
        inline = [len(t.names) if _has_correlations(t) else 1 for t in self.terms]
        n_corr = max((q for q in inline if q <= _INLINE_EFFECTS), default=1) - 1

        def row(
            group: str, name: str, variance: float, error: float, corr: list[float]
        ) -> list[str]:
            cells = [group, name, write_number(variance, places)]
            if errors is not None:
                cells.append(write_number(error, places))
            cells.append(write_number(np.sqrt(variance), sd_places))
            return cells + [_write_corr(r) for r in corr] + [""] * (n_corr - len(corr))

        rows = []
        for t, (term, D) in enumerate(zip(self.terms, self.blocks, strict=True)):
            corr = correlation(D)
            for a, name in enumerate(term.names):
                shown = list(corr[a, :a]) if 1 < inline[t] <= _INLINE_EFFECTS else []
                error = np.nan if errors is None else errors[t][a]
                rows.append(row(term.group if a == 0 else "", name, D[a, a], error, shown))
        for k, (name, variance) in enumerate(self.residuals.items()):
            error = np.nan if errors is None else errors[-1][k]
            rows.append(row(name, "", variance, error, []))
        header = ["Group", "Effect", "Variance", "Std.Dev."]
        if errors is not None:
            header.insert(3, "SE(Var.)")
        return header + ["Corr."] * (n_corr > 0) + [""] * (n_corr - 1), rows

    def html(self, errors: Sequence[Array] | None = None) -> str:
        """Return the table in HTML; see `lines`."""
        parts = [html_table(*self._cells(errors), n_labels=2)]
        for term, D in zip(self.terms, self.blocks, strict=True):
            if _has_correlations(term) and len(D) > _INLINE_EFFECTS:
                parts.append(html_table(*_matrix(term, D), n_labels=1))
        return "".join(parts)

    def __repr__(self) -> str:
        """Return the table."""
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return self.html()


def _has_correlations(term: Term) -> bool:
    return len(term.names) > 1 and term.structure.name not in ("diagonal", "identity")


def _matrix(term: Term, D: Array) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the lower triangle of the correlations, effects numbered."""
    corr, q = correlation(D), len(D)
    room = WIDTH - 8 * (q - 1)
    header = ["Effect", *(str(b + 1) for b in range(q - 1))]
    rows = [
        [
            shorten(f"{a + 1} {name}", room),
            *(_write_corr(r) for r in corr[a, :a]),
            *[""] * (q - 1 - a),
        ]
        for a, name in enumerate(term.names)
    ]
    return header, rows


def _write_corr(value: float) -> str:
    return "." if np.isnan(value) else f"{value:.3f}"


def correlation(D: Array) -> Array:
    """Correlation matrix; NaN beside a variance of zero."""
    sd = np.sqrt(np.diag(D))
    with np.errstate(divide="ignore", invalid="ignore"):
        corr = D / np.outer(sd, sd)
    corr = np.clip(corr, -1.0, 1.0)
    corr[np.diag_indices(len(D))] = np.where(sd > 0, 1.0, np.nan)
    return np.asarray(corr)
