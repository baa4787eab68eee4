"""Predictions as a service makes them: of one row or of many, over and over, by many threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.design.from_arrays import ArraySpec
from lmmfast.errors import DataError
from lmmfast.literals import Interval, Uncertainty
from lmmfast.pickled import checked, with_version
from lmmfast.prediction.new_rows import NEW_LEVELS, Predictor
from lmmfast.prediction.one_row import OneRow, one_row

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult


class Scorer:
    """Predicts new rows; made by `LMMResult.scorer`, holds no rows of the fit.

    It cannot be changed, may be used by any number of threads at once, and can be pickled.

    Attributes
    ----------
    level : str or list of str
        Level of prediction.
    new_levels : {"population", "missing", "error"}
        What is returned for groups that the fit did not have.
    columns : tuple of str
        Columns that rows must have.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> score = fit.scorer()
    >>> round(score.one(Subject="S308", Days=10), 1)
    450.3
    >>> score({"Subject": ["S308", "S335"], "Days": [10, 10]}).round(1).tolist()
    [450.3, 248.2]
    """

    __slots__ = ("_fit", "_one", "_predictor", "_residual", "columns", "level", "new_levels")

    level: str | list[str]
    new_levels: str
    columns: tuple[str, ...]
    _predictor: Predictor
    _one: OneRow | None
    _fit: LMMResult | None
    _residual: str

    def __init__(
        self,
        predictor: Predictor,
        level: str | list[str],
        new_levels: str,
        fit: LMMResult | None = None,
        residual: str = "process",
    ) -> None:
        self._set(predictor, level, new_levels, fit, residual)

    def _set(
        self,
        predictor: Predictor,
        level: str | list[str],
        new_levels: str,
        fit: LMMResult | None = None,
        residual: str = "process",
    ) -> None:
        for name, value in (
            ("_fit", fit),
            ("_residual", residual),
            ("_predictor", predictor),
            ("_one", one_row(predictor)),
            ("level", level),
            ("new_levels", new_levels),
            ("columns", _columns(predictor)),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a scorer cannot be changed: make another one ({name}={value!r})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a scorer cannot be changed ({name})")

    def __call__(
        self, rows: Any, *, groups: Any = None, Z: Any = None, offset: Any = None
    ) -> Array | pd.Series[float]:
        """Predict many rows, with every bit as `LMMResult.predict` does.

        Parameters
        ----------
        rows : table, or array (n, p) for models fitted to arrays
        groups, Z, offset : array, optional
            As in `LMMResult.predict`.

        Returns
        -------
        ndarray or Series (n,)
            A Series for pandas frames. NaN in rows with a missing value.

        Raises
        ------
        DataError
            Unknown column, unseen level of a factor, unknown group if ``new_levels="error"``.
        """
        return self._predictor.predict(rows, self.new_levels, groups, Z, offset, warn=False)

    def frame(
        self,
        rows: Any,
        *,
        groups: Any = None,
        Z: Any = None,
        offset: Any = None,
        given: Any = None,
        interval: Interval | None = None,
        alpha: float = 0.05,
        uncertainty: Uncertainty = "beta",
    ) -> pd.DataFrame:
        """Predict rows with standard errors, of new groups from rows of theirs too.

        Parameters
        ----------
        rows, groups, Z, offset, given, interval, alpha, uncertainty
            As in `LMMResult.predict`; no warning of groups that the fit did not have.

        Returns
        -------
        DataFrame
            ``estimate``, ``std_error``, ``df``, and with ``interval`` ``conf_low``, ``conf_high``.

        Raises
        ------
        DataError
            The scorer of a fit that holds its rows, which a scorer does not: make it of what
            `lmmfast.load` returns, or of ``fit.remove_data()``. Otherwise as `LMMResult.predict`.
        """
        from lmmfast.prediction.placed import Inputs
        from lmmfast.prediction.predict import Wanted, predict

        if self._fit is None:
            raise DataError(
                "standard errors and given= need a scorer of a fit without rows: "
                "lf.load(path).scorer(), or fit.remove_data().scorer()"
            )
        inputs = Inputs(groups, Z, offset, warn=False)
        wanted = Wanted(interval, True, alpha, uncertainty)
        level: Any = self.level
        found: Any = predict(
            self._fit, rows, level, self.new_levels, inputs, self._residual, wanted, given
        )
        return found

    def one(self, /, **row: Any) -> float:
        """Predict one row of numbers and texts.

        Parameters
        ----------
        **row
            Its values by column; others than those of the model are ignored. Models fitted to
            arrays: by ``x_names``, ``z_names`` and names of grouping factors.

        Returns
        -------
        float
            The same bits as for a table of this row. NaN where a value is missing.

        Raises
        ------
        DataError
            A column that is not there, unseen level of a factor, unknown group if
            ``new_levels="error"``.
        """
        if self._one is not None:
            found = self._one.predict(row, self.new_levels)
            if found is not None:
                return found
        spec = self._predictor.spec
        if isinstance(spec, ArraySpec):
            return self._one_of_arrays(spec, row)
        table = {name: [row[name]] for name in self.columns if name in row}
        return float(np.asarray(self(table))[0])

    def _one_of_arrays(self, spec: ArraySpec, row: dict[str, Any]) -> float:
        """As `one`, by the way of arrays: for what is missing, or no plain number."""
        numbers = {*spec.x_names, *(name for own in spec.z_names for name in own or ())}
        twice = numbers.intersection(spec.factor_names)
        if twice:
            raise DataError(
                f"{min(twice)!r} is a column of X or Z and a grouping factor: pass arrays of one "
                "row, score(X, groups=...)"
            )
        absent = [name for name in self.columns if name not in row]
        if absent:
            raise DataError(f"the row has no value of {absent[0]!r}")
        X = {name: [row[name]] for name in spec.x_names}
        if not self._predictor.factors:
            return float(np.asarray(self(X))[0])
        Z = [{name: [row[name]] for name in names} if names else None for names in spec.z_names]
        groups: Any = {name: [row[name]] for name in spec.factor_names}
        if len(Z) == 1:
            groups, Z = groups[spec.factor_names[0]], Z[0]  # type: ignore[assignment]
        return float(np.asarray(self(X, groups=groups, Z=Z))[0])

    def __repr__(self) -> str:
        """Return one line."""
        groups = ", ".join(
            f"{len(own.b)} groups of {own.name!r}" for own in self._predictor.effects
        )
        return f"<Scorer, level {self.level!r}: columns {', '.join(self.columns)}; {groups or '-'}>"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what predictions are made of, with the version of this state."""
        return with_version(
            {
                "predictor": self._predictor,
                "level": self.level,
                "new_levels": self.new_levels,
                "fit": self._fit,
                "residual": self._residual,
            }
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(**checked(state))


def make_scorer(fit: LMMResult, level: Any, new_levels: str, residual: str) -> Scorer:
    """Make the scorer of a fit; see `LMMResult.scorer`."""
    from lmmfast.prediction.predict import rowless_predictor

    check_choice("new_levels", new_levels, NEW_LEVELS)
    own = rowless_predictor(fit, level, residual, "a scorer")
    own.warn_of_new_data(has_offset=False, stacklevel=4)
    bare = fit if fit._engine is None and fit._design is None else None
    levels = level if isinstance(level, str) else list(level)
    return Scorer(own, levels, new_levels, bare, residual)


def _columns(predictor: Predictor) -> tuple[str, ...]:
    """Columns that rows must have."""
    spec, factors = predictor.spec, predictor.factors
    if isinstance(spec, ArraySpec):
        effects = [name for names in spec.z_names if factors for name in names or ()]
        groups = [spec.factor_names[k] for k in factors]
        return tuple(dict.fromkeys([*spec.x_names, *effects, *groups]))
    parts = ["X", *(spec.z_parts if factors else [])]
    used = sorted(frozenset().union(*(spec.parts[name].columns for name in parts)))
    groups = [name for k in factors for name in spec.formula.factors[k]]
    offset = [] if spec.offset_name is None else [spec.offset_name]
    return tuple(dict.fromkeys([*used, *groups, *offset]))
