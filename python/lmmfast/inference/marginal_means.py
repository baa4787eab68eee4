"""Estimated marginal means (least-squares means), slopes, and contrasts among them.

Means of the values that the model predicts over a reference grid: Searle, Speed and Milliken
(1980), The American Statistician 34, 216-221; the grid, weights and names are those of the R
package emmeans.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.inference.adjust import Family, adjusted_p, check_adjustment, critical_values
from lmmfast.inference.denominators import FTest
from lmmfast.inference.reference_grid import grid_weights, reference_grid

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

#: Singular values of functions below this part of the largest are rounding.
RANK = 1e-9


@dataclass(frozen=True, eq=False)
class MarginalMeans:
    """Linear functions of the fixed effects: means, slopes or contrasts, with their inference.

    Attributes
    ----------
    labels : DataFrame (k, …)
        What each of them is of.
    L : ndarray (k, p)
        The functions; NaN where one is not estimable.
    by : list of str
        Columns of the labels within whose values they are compared.
    adjust : str
        Adjustment of p-values and intervals.
    n_means : int or None
        Of contrasts the number of means that each set compares.
    is_pairwise : bool
        Whether they are all differences of two of them.
    """

    fit: LMMResult
    labels: pd.DataFrame
    L: Array
    by: list[str]
    alpha: float = 0.05
    adjust: str = "none"
    n_means: int | None = None
    is_pairwise: bool = False

    @property
    def frame(self) -> pd.DataFrame:
        """Labels, then estimate, std_error, statistic, df, p_value, conf_low, conf_high.

        NaN where a function is not estimable: columns of X that it needs were dropped.
        """
        import pandas as pd

        k = len(self.L)
        known = np.asarray(np.isfinite(self.L).all(axis=1))
        values = {name: np.full(k, np.nan) for name in _COLUMNS}
        for rows in self._groups():
            rows = rows[known[rows]]
            if len(rows):
                for name, found in zip(_COLUMNS, self._inference(self.L[rows]), strict=True):
                    values[name][rows] = found
        return pd.concat([self.labels, pd.DataFrame(values)], axis=1)

    def _groups(self) -> list[Any]:
        """Rows that belong together: those of the same values of ``by``."""
        if not self.by:
            return [np.arange(len(self.L))]
        code = self.labels.groupby(self.by, sort=False, observed=True).ngroup().to_numpy()
        return [np.flatnonzero(code == group) for group in range(code.max() + 1)]

    def _inference(self, L: Array) -> tuple[Array, ...]:
        """The columns of the frame for functions L."""
        method = self.fit._denominators
        estimate = L @ self.fit._estimates.beta
        cov = L @ method.cov @ L.T
        error = np.sqrt(np.diag(cov))
        df = np.array([method.df(row) for row in L])
        with np.errstate(invalid="ignore", divide="ignore"):
            t, correlation = estimate / error, cov / np.outer(error, error)
        singular = np.linalg.svd(L, compute_uv=False)
        rank = int((singular > RANK * singular[0]).sum())
        n_means = len(L) if self.n_means is None else self.n_means
        family = Family(t, df, correlation, n_means, rank, self.is_pairwise)
        half = critical_values(family, self.adjust, self.alpha) * error
        return (
            estimate,
            error,
            t,
            df,
            adjusted_p(family, self.adjust),
            estimate - half,
            estimate + half,
        )

    def pairs(self, adjust: str = "tukey", *, reverse: bool = False) -> MarginalMeans:
        """Return all pairwise differences, within the values of ``by``.

        Parameters
        ----------
        adjust : str
            "tukey", "none", "bonferroni", "holm", "sidak", "scheffe", "mvt".
        reverse : bool
            Later less earlier.
        """
        return self.contrast("revpairwise" if reverse else "pairwise", adjust=adjust)

    def contrast(self, method: Any = "pairwise", *, adjust: str | None = None) -> MarginalMeans:
        """Return contrasts of the means, within the values of ``by``.

        Parameters
        ----------
        method : str or mapping
            "pairwise", "revpairwise", "trt.vs.ctrl" (each less the first), "consec" (each less the
            one before), "eff" (each less their mean), "poly" (orthogonal polynomials of equally
            spaced levels), or names with their weights, ``{"low - high": [1, 0, -1]}``.
        adjust : str, optional
            Default: "tukey" for pairs, "dunnettx" for "trt.vs.ctrl", else "none".

        Raises
        ------
        ValueError
            Unknown words, or Tukey's method for others than pairs.
        DataError
            Weights of another number of means.
        """
        import pandas as pd

        pairwise = isinstance(method, str) and method in ("pairwise", "revpairwise")
        if adjust is None:
            adjust = "tukey" if pairwise else "dunnettx" if method == "trt.vs.ctrl" else "none"
        check_adjustment(adjust, pairwise)
        labels, functions = [], []
        for rows in self._groups():
            if len(rows) < 2 and not isinstance(method, Mapping):
                raise DataError(
                    f"there is one mean alone, {self._names(rows)[0] or 'of all rows'}: no others "
                    "to compare it with"
                )
            weights = _contrasts(method, self._names(rows))
            for name, row in weights.items():
                labels.append({"contrast": name, **self.labels.loc[rows[0], self.by].to_dict()})
                used = row != 0
                functions.append(row[used] @ self.L[rows[used]])
        return MarginalMeans(
            self.fit,
            pd.DataFrame(labels),
            np.array(functions),
            self.by,
            self.alpha,
            adjust,
            len(rows),
            pairwise,
        )

    def _names(self, rows: Any) -> list[str]:
        """Names of the means of a group: their labels but those of ``by``."""
        own = self.labels.drop(columns=self.by).iloc[rows]
        return [" ".join(map(_short, row)) for row in own.itertuples(index=False, name=None)]

    def test(self) -> pd.DataFrame:
        """Test that all of them are zero, of means that all are equal: F by value of ``by``.

        Of those that are estimable; NaN where these leave nothing to test.
        """
        import pandas as pd

        out = []
        for rows in self._groups():
            known = self.L[rows][np.isfinite(self.L[rows]).all(axis=1)]
            L = _basis_of_rows(known if self.n_means is not None else np.diff(known, axis=0))
            found = FTest(np.nan, 0, np.nan)
            if len(L):
                found = self.fit._denominators.test(L, L @ self.fit._estimates.beta)
            by = self.labels.loc[rows[0], self.by].to_dict()
            out.append(
                {
                    **by,
                    "df_num": found.df_num,
                    "df_denom": found.df_denom,
                    "statistic": found.statistic,
                    "p_value": found.p_value,
                }
            )
        return pd.DataFrame(out)

    def __repr__(self) -> str:
        """Return the frame as text."""
        note = "" if self.adjust == "none" else f"\nadjusted: {self.adjust}"
        return f"{self.frame.to_string(index=False)}{note}"

    def _repr_html_(self) -> str:
        return str(self.frame.to_html(index=False))


_COLUMNS = ("estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high")


def marginal_means(
    fit: LMMResult,
    specs: Any,
    by: Any,
    at: Mapping[str, Any] | None,
    weights: str,
    alpha: float,
    slope: str | None = None,
) -> MarginalMeans:
    """Average the reference grid over what is not in ``specs``; see `LMMResult.emmeans`."""
    import pandas as pd

    grid = reference_grid(fit, at, slope)
    of = [specs] if isinstance(specs, str) else list(specs)
    within = [] if by is None else [by] if isinstance(by, str) else list(by)
    names = [*of, *(name for name in within if name not in of)]
    unknown = [name for name in names if name not in grid.values]
    if unknown or not names:
        raise DataError(
            f"the fixed effects have no column {unknown[0] if unknown else ''!r}: there are "
            f"{', '.join(grid.values)}"
        )
    share = grid_weights(fit, grid, names, weights)
    cells = list(itertools.product(*(grid.values[name] for name in reversed(names))))
    labels = pd.DataFrame([row[::-1] for row in cells], columns=names)
    keys = list(grid.frame[names].itertuples(index=False, name=None))
    place = {tuple(row[::-1]): k for k, row in enumerate(cells)}
    L = np.zeros((len(cells), grid.X.shape[1]))
    for key, weight, row in zip(keys, share, grid.X, strict=True):
        if weight != 0:
            L[place[key]] += weight * row
    return MarginalMeans(fit, labels, L, within, alpha)


def _basis_of_rows(L: Array) -> Array:
    """Orthonormal rows that span those of L (k, p): fewer, where they depend on each other."""
    if not L.size:
        return np.zeros((0, L.shape[1]))
    values, vectors = np.linalg.svd(L)[1:]
    return np.asarray(vectors[: int((values > RANK * values[0]).sum())])


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _contrasts(method: Any, names: list[str]) -> dict[str, Array]:
    """Weights of the means by name of the contrast."""
    k = len(names)
    unit = np.eye(k)
    if isinstance(method, Mapping):
        own = {str(name): np.asarray(row, dtype=float) for name, row in method.items()}
        for name, row in own.items():
            if row.shape != (k,):
                raise DataError(f"{name!r} has {row.size} weights, but there are {k} means")
        return own
    if method == "pairwise":
        pairs = itertools.combinations(range(k), 2)
        return {f"{names[a]} - {names[b]}": unit[a] - unit[b] for a, b in pairs}
    if method == "revpairwise":
        pairs = itertools.combinations(range(k), 2)
        return {f"{names[b]} - {names[a]}": unit[b] - unit[a] for a, b in pairs}
    if method == "trt.vs.ctrl":
        return {f"{names[a]} - {names[0]}": unit[a] - unit[0] for a in range(1, k)}
    if method == "consec":
        return {f"{names[a]} - {names[a - 1]}": unit[a] - unit[a - 1] for a in range(1, k)}
    if method == "eff":
        return {f"{name} effect": row - 1.0 / k for name, row in zip(names, unit, strict=True)}
    if method == "poly":
        return _polynomials(k)
    raise ValueError(
        f"method={method!r}: choose 'pairwise', 'revpairwise', 'trt.vs.ctrl', 'consec', 'eff', "
        "'poly' or a mapping of names to weights"
    )


def _polynomials(k: int) -> dict[str, Array]:
    """Orthogonal polynomials of k equally spaced levels, scaled to whole numbers."""
    words = ["linear", "quadratic", "cubic", "quartic"]
    powers = np.vander(np.arange(k) - (k - 1) / 2, min(k, 6), increasing=True)
    Q, R = np.linalg.qr(powers)
    out = {}
    for degree in range(1, min(k, 6)):
        column = Q[:, degree] * np.sign(R[degree, degree])
        column /= np.abs(column[np.abs(column) > 1e-9]).min()
        multiples = np.outer(range(1, 30), column)
        whole = np.abs(multiples - np.round(multiples)).max(axis=1) < 1e-8
        if whole.any():
            column = np.round(multiples[whole.argmax()])
        out[words[degree - 1] if degree <= 4 else f"degree {degree}"] = column
    return out
