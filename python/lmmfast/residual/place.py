"""Where rows stand in a residual structure: rows of a fit, and rows that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.columns import Column
from lmmfast.data.frame import with_used_levels
from lmmfast.errors import DataError
from lmmfast.residual import registry
from lmmfast.residual.columns import as_days
from lmmfast.residual.layout import ResidualParameters, VariancePart
from lmmfast.residual.structure import ResidualStructure

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class KnownColumn:
    """What a fit knows of a column that its residual structure reads.

    Attributes
    ----------
    name : str
    levels : ndarray (k,) or None
        Distinct values of the rows used, in their order; None for a column of measurements.
    is_factor : bool
        Whether the fit had text, categories or dates rather than numbers.
    origin : str or None
        Date that days are counted from, in ISO format; None: the column has no dates.
    """

    name: str
    levels: NDArray[Any] | None
    is_factor: bool
    origin: str | None = None

    def values(self, column: Column) -> NDArray[Any]:
        """Return the values (n,) of new rows, which must be of the kind that the fit had.

        Raises
        ------
        DataError
            Text where there were numbers, or the reverse; no dates where there were.
        """
        days = None if self.is_factor else as_days(column, self.origin)
        if days is not None:
            return days
        if column.is_factor != self.is_factor or self.origin is not None:
            kind = "levels" if self.is_factor else "numbers"
            kind = kind if self.origin is None else "dates"
            raise DataError(f"{self.name!r} has {kind} in the fit, but not in the new rows")
        if column.levels is None:
            return column.values
        levels = np.empty(len(column.levels) + 1, dtype=object)  # the last one is of code -1
        levels[:-1] = column.levels
        return np.asarray(levels[column.values])


@dataclass(frozen=True, eq=False)
class Places:
    """What residuals depend on, row by row.

    Attributes
    ----------
    G : ndarray (n, n_variance) or None
        Columns of the log-linear variance model.
    positions : ndarray of int (n,) or None
        Of table structures; T stands for one that no row of the fit has.
    coords : ndarray (n, d) or None
        Of distance structures, in units of ``parameters.unit``.
    stratum : ndarray of int (n,)
        Which parameters hold.
    """

    G: Array | None
    positions: Index | None
    coords: Array | None
    stratum: Index

    def take(self, rows: Any) -> Places:
        """Return some of the rows."""
        G, positions, coords = (
            None if values is None else values[rows]
            for values in (self.G, self.positions, self.coords)
        )
        return Places(G, positions, coords, self.stratum[rows])


def used_columns(structure: ResidualStructure) -> list[str]:
    """Names of the columns that a structure reads, each once."""
    correlation = structure.correlation
    names = [] if correlation is None else [*correlation.columns, correlation.by]
    for part in structure.variances:
        names += [*part.columns, part.by]
    return list(dict.fromkeys(name for name in names if name is not None))


def known_columns(
    structure: ResidualStructure, columns: Mapping[str, Column]
) -> dict[str, KnownColumn]:
    """Keep what placing new rows takes of the columns (n,) of the rows used."""
    measured = _measured(structure)
    known = {}
    for name in used_columns(structure):
        column = with_used_levels(columns[name], None)
        levels = None
        if column.levels is not None:
            levels = np.asarray(column.levels)
        elif name not in measured:
            levels = np.unique(column.values)
        known[name] = KnownColumn(name, levels, column.is_factor, column.origin)
    return known


def _measured(structure: ResidualStructure) -> set[str]:
    """Columns of numbers that are used as numbers alone."""
    correlation = structure.correlation
    numbers: set[str] = set()
    levels: set[str] = set()
    if correlation is not None:
        own = levels if correlation.kind in registry.TABLES else numbers
        own.update(correlation.columns)
        levels.update([] if correlation.by is None else [correlation.by])
    for part in structure.variances:
        (levels if part.kind == "levels" else numbers).update(part.columns)
        levels.update([] if part.by is None else [part.by])
    return numbers - levels


class Placing:
    """Finds the places of rows by the values of their columns.

    Parameters
    ----------
    structure : ResidualStructure
    parameters : ResidualParameters
    known : mapping of KnownColumn
    """

    def __init__(
        self,
        structure: ResidualStructure,
        parameters: ResidualParameters,
        known: Mapping[str, KnownColumn],
    ) -> None:
        self.structure, self.parameters, self.known = structure, parameters, known

    def places(self, values: Mapping[str, NDArray[Any]], n: int, new: bool) -> Places:
        """Find the places of n rows.

        Parameters
        ----------
        values : mapping of ndarray (n,)
            Of `used_columns`, as `KnownColumn.values` gives them; nothing is missing.
        n : int
        new : bool
            Rows beside those of the fit: where the order of the rows is their position, these
            have none of theirs.

        Raises
        ------
        DataError
            Levels that the fit has not seen, visits that are not whole numbers.
        """
        positions = self._positions(values, n, new)
        coords = self.coords(values)
        parts = self.parameters.variances
        G = np.column_stack([self._G(part, values) for part in parts]) if parts else None
        return Places(G, positions, coords, self._stratum(values, n))

    def _codes(self, name: str, values: NDArray[Any]) -> Index:
        """Positions among the levels that the fit has."""
        levels = self.known[name].levels
        assert levels is not None
        code = {level: k for k, level in enumerate(levels.tolist())}
        keys = values.tolist()
        unknown = next((value for value in keys if value not in code), None)
        if unknown is not None:
            shown = ", ".join(map(str, levels[:10].tolist()))
            raise DataError(f"{name!r} has no level {unknown!r} in the fit; it has {shown}")
        return np.array([code[value] for value in keys], dtype=np.intp)

    def _labels(self, name: str, values: NDArray[Any]) -> list[str]:
        """Levels as they are called among the parameters."""
        codes, levels = self._codes(name, values), self.known[name].levels
        assert levels is not None
        number = levels.dtype.kind == "f"
        texts = [f"{level:g}" if number else str(level) for level in levels.tolist()]
        return [texts[code] for code in codes.tolist()]

    def _positions(self, values: Mapping[str, NDArray[Any]], n: int, new: bool) -> Index | None:
        """Positions (n,) of table structures."""
        correlation = self.parameters.correlation
        if correlation is None or correlation.kind not in registry.TABLES:
            return None
        if correlation.role == "positions":
            return self._table_positions(correlation.columns[0], values, new)
        if correlation.columns:
            (name,) = correlation.columns
            return self._codes(name, values[name])
        if new:
            return np.full(n, self.parameters.T)
        if n > self.parameters.T:
            raise DataError(
                f"{self.structure} is known for groups of {self.parameters.T} rows at most, as the "
                f"data have them, and not for {n}"
            )
        return np.arange(n)

    def _table_positions(self, name: str, values: Mapping[str, NDArray[Any]], new: bool) -> Index:
        """Whole numbers as positions of a table, of which differences matter.

        Beside rows of the fit from the least that it has, else from their own least.
        """
        place = self._whole_numbers(name, values[name])
        levels, T = self.known[name].levels, self.parameters.T
        assert levels is not None
        if not new:
            place = place - (place.min() if len(place) else 0.0)
        elif not self.known[name].is_factor:
            place = place - float(levels.min())
        if len(place) and (place.min() < 0 or place.max() >= T):
            raise DataError(
                f"the new rows go over {max(place.max() + 1, -place.min()):g} places of {name!r}, "
                f"but {self.structure} is known over the {T} of the data alone"
            )
        return place.astype(np.intp)

    def coords(self, values: Mapping[str, NDArray[Any]]) -> Array | None:
        """Coordinates (n, d) of distance structures; only their differences mean something."""
        correlation = self.parameters.correlation
        if correlation is None or correlation.kind in registry.TABLES:
            return None
        own = [values[name] for name in correlation.columns]
        if correlation.role == "positions":
            return self._whole_numbers(correlation.columns[0], own[0])[:, None]
        return np.column_stack(own).astype(float) / self.parameters.unit

    def _whole_numbers(self, name: str, values: NDArray[Any]) -> Array:
        numbers = self._codes(name, values) if self.known[name].is_factor else values
        place = np.asarray(numbers, dtype=np.float64)
        whole = place == np.round(place)
        if not whole.all():
            raise DataError(
                f"{self.structure} needs whole numbers, but {name!r} of the new rows has "
                f"{place[np.argmin(whole)]:g}"
            )
        return place

    def _G(self, part: VariancePart, values: Mapping[str, NDArray[Any]]) -> Array:
        """Columns of the log-linear variance model, as `lmmfast.residual.model` makes them."""
        if part.kind == "levels":
            labels = [self._labels(name, values[name]) for name in part.columns]
            crossed = [":".join(row) for row in zip(*labels, strict=True)]
            return _indicators(part, crossed)[:, 1:]
        v = np.asarray(values[part.columns[0]], dtype=np.float64)
        if part.kind == "power":
            if (v == 0).any():
                raise DataError(f"{part.columns[0]!r} is zero in a new row, where VarPower fails")
            v = np.log(np.abs(v))
        G = ((v - part.center) / part.scale)[:, None]
        if not part.labels:
            return G
        by = next(
            variance.by
            for variance in self.structure.variances
            if variance.columns == part.columns and variance.by is not None
        )
        return G * _indicators(part, self._labels(by, values[by]))

    def _stratum(self, values: Mapping[str, NDArray[Any]], n: int) -> Index:
        correlation = self.parameters.correlation
        if correlation is None or correlation.by is None:
            return np.zeros(n, dtype=np.intp)
        code = {stratum.label: k for k, stratum in enumerate(self.parameters.strata)}
        labels = self._labels(correlation.by, values[correlation.by])
        return np.array([code[label] for label in labels], dtype=np.intp)


def _indicators(part: VariancePart, labels: list[str]) -> Array:
    for label in labels:
        if label not in part.labels:
            raise DataError(f"{':'.join(part.columns)} has no level {label} in the fit")
    out = np.array(labels, dtype=object)[:, None] == np.array(part.labels, dtype=object)
    return out.astype(float).reshape(len(labels), len(part.labels))
