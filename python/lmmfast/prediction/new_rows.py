"""Predictions for new rows: their columns, the effects of their groups, and what is missing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK, NewBatch
from lmmfast.data.columns import read_column
from lmmfast.data.frame import as_float
from lmmfast.data.keys import GroupKeys
from lmmfast.data.tables import check_same_index, row_index, single_column
from lmmfast.data.text_labels import TextLabels
from lmmfast.errors import DataError, NewDataWarning, NewGroupsWarning
from lmmfast.prediction.lookup import GroupLookup

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.design.from_arrays import ArraySpec
    from lmmfast.formula.spec import FormulaSpec

NEW_LEVELS = ("population", "missing", "error")


@dataclass(frozen=True, eq=False)
class FactorEffects:
    """Predicted effects of a grouping factor.

    Attributes
    ----------
    name : str
    columns : ndarray of int (q_f,)
        Their columns of Z.
    b : ndarray (m_f, q_f)
    labels : ndarray or TextLabels (m_f,)
    """

    name: str
    columns: NDArray[np.intp]
    b: Array
    labels: NDArray[Any] | TextLabels

    @cached_property
    def lookup(self) -> GroupLookup:
        """Positions of groups."""
        return GroupLookup(self.labels)


@dataclass(frozen=True, eq=False)
class ReadRows:
    """New rows as a predictor has read them.

    Attributes
    ----------
    batch : NewBatch
    positions : list of ndarray of int (n,)
        By grouping factor, the position of each row's group among the effects; -1: not known.
    left_out : ndarray of bool (n,)
        Rows without a prediction: a value is missing, or they have no group.
    keys : list of GroupKeys
        By grouping factor.
    told : ndarray of int (n,) or None
        The position of each row's group among others whose rows are given; -1: among none.
    """

    batch: NewBatch
    positions: list[NDArray[np.intp]]
    left_out: NDArray[np.bool_]
    keys: list[GroupKeys]
    told: NDArray[np.intp] | None = None


@dataclass(frozen=True, eq=False)
class Predictor:
    """What predictions for new rows are made of, at one level.

    Attributes
    ----------
    spec : FormulaSpec or ArraySpec
        Makes the columns of new rows.
    keep : ndarray of int (p,)
        Columns of X that the fit kept.
    beta : ndarray (p,)
    factors : tuple of int
        Grouping factors whose effects are included.
    effects : tuple of FactorEffects
        Of these.
    dropped_columns : tuple of str
        Columns of X that the fit dropped.
    """

    spec: FormulaSpec | ArraySpec
    keep: NDArray[np.intp]
    beta: Array
    factors: tuple[int, ...]
    effects: tuple[FactorEffects, ...]
    dropped_columns: tuple[str, ...] = ()

    def predict(
        self,
        newdata: Any,
        new_levels: str,
        groups: Any = None,
        Z: Any = None,
        offset: Any = None,
        warn: bool = True,
    ) -> Array | pd.Series[float]:
        """Predict new rows; see `LMMResult.predict`.

        Parameters
        ----------
        warn : bool
            Warn of groups that the fit did not have.
        """
        rows = self.read(newdata, new_levels, groups, Z, offset, warn)
        return with_index(self.mean(rows, offset), newdata)

    def read(
        self,
        newdata: Any,
        new_levels: str,
        groups: Any,
        Z: Any,
        offset: Any,
        warn: bool = True,
        random: bool | None = None,
        given: GroupLookup | None = None,
    ) -> ReadRows:
        """Read the columns of new rows, and find their groups.

        Parameters
        ----------
        random : bool, optional
            With the columns of Z; default: where their effects are asked for.
        given : GroupLookup, optional
            Groups of the only factor that are known from elsewhere, and not by the fit.
        """
        sources = {"newdata": newdata, "groups": groups, "Z": Z, "offset": offset}
        check_same_index({name: row_index(data) for name, data in sources.items()})
        with np.errstate(over="ignore", invalid="ignore"):  # found by _check_range
            batch, keys = self._new_rows(newdata, groups, Z, offset, random)
        told = None if given is None else given.rows(keys[0], batch.n_rows)
        positions = []
        for own, key in zip(self.effects, keys, strict=True):
            positions.append(_known_groups(own, key, batch.n_rows, new_levels, warn, told))
        left_out = np.zeros(batch.n_rows, dtype=bool)
        for missing in (batch.missing, *(key.missing for key in keys)):
            if missing is not None:
                left_out |= missing
        if new_levels == "missing":
            for position in positions:
                left_out |= (position < 0) if told is None else (position < 0) & (told < 0)
        return ReadRows(batch, positions, left_out, keys, told)

    def mean(self, rows: ReadRows, offset: Any) -> Array:
        """X beta + Z b + offset of rows, (n,); NaN where they are left out."""
        batch = rows.batch
        out = np.empty(batch.n_rows)
        for start in range(0, batch.n_rows, CHUNK):
            here = slice(start, min(start + CHUNK, batch.n_rows))
            with np.errstate(over="ignore", invalid="ignore"):  # found by _check_range
                out[here] = self._predicted(batch, rows.positions, here)
        _check_range(~np.isfinite(out) & ~rows.left_out)
        out[rows.left_out] = np.nan
        if batch.offset is not None:
            out += batch.offset
        elif offset is not None:
            out += self.offset(offset, batch.n_rows)
        _check_range(np.isinf(out))
        return out

    def offset(self, given: Any, n_rows: int) -> Array:
        """Read an offset (n_rows,) that is given as an array; NaN where it is missing."""
        return _read_offset(given, n_rows)

    def warn_of_new_data(self, has_offset: bool, stacklevel: int) -> None:
        """Warn where the fit alone cannot tell what the predictions of new rows are."""
        if self.dropped_columns:
            warnings.warn(
                f"columns of X were dropped from the fit ({', '.join(self.dropped_columns)}): "
                "predictions hold for new rows only where the columns kept determine these as they "
                "did in the fit",
                NewDataWarning,
                stacklevel=stacklevel,
            )
        if self.spec.offset_array and not has_offset:
            warnings.warn(
                "the fit had an offset given as an array: predictions are without it unless new "
                "values are given as offset=",
                NewDataWarning,
                stacklevel=stacklevel,
            )

    def _new_rows(
        self, newdata: Any, groups: Any, Z: Any, offset: Any, random: bool | None
    ) -> tuple[NewBatch, list[GroupKeys]]:
        """Columns of new rows and their keys of the grouping factors asked for."""
        from lmmfast.design.from_arrays import ArraySpec

        spec, factors = self.spec, self.factors
        random = bool(factors) if random is None else random
        if isinstance(spec, ArraySpec):
            if isinstance(offset, str):
                raise DataError(f"offset={offset!r}: models fitted to arrays need it as an array")
            batch = spec.columns(newdata, Z, random=random)
            if not factors:
                return batch, []
            if groups is None:
                raise DataError("conditional predictions need groups=, a group for each row")
            found = spec.group_keys(groups, factors)
            for keys in found:
                if len(keys) != batch.n_rows:
                    raise DataError(f"groups has {len(keys)} entries for {batch.n_rows} rows")
            return batch, found
        batch = spec.columns(newdata, random=random, offset=offset)
        return batch, spec.group_keys(newdata, factors) if factors else []

    def _predicted(self, batch: NewBatch, positions: list[NDArray[np.intp]], rows: slice) -> Array:
        """X beta + Z b of some rows; no effects where the group is unknown (position -1)."""
        X = [x[rows] for x in batch.X]
        out = linear_predictor(X, self.keep, self.beta, rows.stop - rows.start)
        for own, position in zip(self.effects, positions, strict=True):
            here = position[rows]
            known = here >= 0
            if not known.any():
                continue
            for k, column in enumerate(own.columns):
                effect = batch.Z[column][rows] * own.b[here, k]
                out += effect if known.all() else np.where(known, effect, 0.0)
        return out


def linear_predictor(X: list[Array], keep: NDArray[np.intp], beta: Array, n: int) -> Array:
    """X beta (n,) over the columns that the fit kept."""
    out = np.zeros(n)
    for j, coefficient in zip(keep, beta, strict=True):
        out += coefficient * X[j]
    return out


def _known_groups(
    effects: FactorEffects,
    keys: GroupKeys,
    n_rows: int,
    new_levels: str,
    warn: bool,
    told: NDArray[np.intp] | None,
) -> NDArray[np.intp]:
    """Position of each row's group among those of the fit; -1 for unknown or missing groups.

    And for those that are told of from elsewhere.
    """
    position = effects.lookup.rows(keys, n_rows)
    unknown = position < 0
    if told is not None:
        position, unknown = np.where(told < 0, position, -1), unknown & (told < 0)
    if keys.missing is not None:
        unknown &= ~keys.missing
    if not unknown.any() or new_levels == "missing":
        return position
    count = f"{int(unknown.sum())} of {n_rows} rows belong to groups of {effects.name!r}"
    if new_levels == "error":
        raise DataError(
            f"{count} that the fit did not have, the first in row {int(np.argmax(unknown))}; pass "
            "new_levels='population' to predict them without random effects"
        )
    if warn:
        warnings.warn(
            f"{count} that the fit did not have: predicted without their random effects",
            NewGroupsWarning,
            stacklevel=5,  # whoever calls fit.predict
        )
    return position


def _check_range(beyond: NDArray[np.bool_]) -> None:
    """Refuse predictions that are not finite although nothing is missing."""
    if beyond.any():
        raise DataError(
            f"the prediction of row {int(np.argmax(beyond))} (counting from 0) is not finite: the "
            "new data are infinite there, or beyond the range of double precision"
        )


def _read_offset(given: Any, n_rows: int) -> Array:
    column = read_column("offset", single_column("offset", given))
    if column.is_factor:
        raise DataError("offset must be numbers")
    if len(column) != n_rows:
        raise DataError(f"offset has shape ({len(column)},), not ({n_rows},)")
    values = as_float(column.values)
    return values if column.missing is None else np.where(column.missing, np.nan, values)


def with_index(values: Array, newdata: Any) -> Array | pd.Series[float]:
    """Values (n,), with the index of a pandas frame if the new data are one."""
    index = row_index(newdata)
    if index is None:
        return values
    import pandas as pd

    return pd.Series(values, index=index)
