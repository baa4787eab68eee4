"""Rows that could have been: what V depends on at given times or visits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.columns import read_column
from lmmfast.data.frame import RowView, as_float
from lmmfast.data.tables import Table, is_table, open_table
from lmmfast.design.from_arrays import ArraySpec
from lmmfast.design.from_formula import FormulaDesign
from lmmfast.errors import DataError
from lmmfast.implied.implied import Group, Index, Rows, labelled, main_columns, values_of
from lmmfast.residual import registry
from lmmfast.residual.layout import Stratum, VariancePart
from lmmfast.residual.model import ResidualModel
from lmmfast.residual.structure import Correlation

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


class NewRows:
    """Makes rows of a cluster from a table or from new times; the rest is as in the cluster."""

    def __init__(self, fit: LMMResult, group: Group) -> None:
        self.fit, self.group = fit, group
        self.design = fit._need(fit._design, "implied covariances")
        self.columns = self.design.residual_columns
        self.model: ResidualModel | None = fit._residual_model

    def at(self, at: Any) -> tuple[Rows, Any]:
        """Rows and their labels."""
        given = at if is_table(at) else {self._main(): np.asarray(at)}
        table = open_table(given)
        n = table.n_rows
        known = {name: self._new_column(table, name) for name in self._needed()}
        Z, roots = self._Z(table, n), np.full(n, np.sqrt(self.fit._basis.weight_scale))
        names = main_columns(self.fit) or tuple(table.names)
        shown = [known[name] if name in known else np.asarray(table.fetch(name)) for name in names]
        labels = labelled(shown, names)
        if self.model is None:
            return Rows(Z, roots), labels
        positions, coords = self._place(known, n)
        rows = Rows(Z, roots, self._G(known), positions, coords, self._stratum(known))
        return rows, labels

    def _main(self) -> str:
        """The one column that ``at=`` as a plain sequence can mean."""
        names = main_columns(self.fit)
        if not names:
            names = tuple(sorted(self._z_columns()))
        if len(names) == 1:
            return names[0]
        wanted = ", ".join(dict.fromkeys([*self._needed(), *sorted(self._z_columns())]))
        if not wanted:
            raise DataError("the covariance depends on no column of the data: leave at= out")
        raise DataError(
            f"give at= as a table with columns {wanted}: the covariance depends on them"
        )

    def _needed(self) -> list[str]:
        """Columns of the residual structure."""
        correlation = self.fit.residual.correlation
        names = [] if correlation is None else [*correlation.columns, correlation.by]
        for part in self.fit.residual.variances:
            names += [*part.columns, part.by]
        return list(dict.fromkeys(name for name in names if name is not None))

    def _z_columns(self) -> set[str]:
        """Columns that the random effects need."""
        if isinstance(self.fit.spec, ArraySpec):
            return {name for names in self.fit.spec.z_names for name in names or ()}
        return set().union(*(self.fit.spec.parts[name].columns for name in self.fit.spec.z_parts))

    # -- values ------------------------------------------------------------------------------------

    def _constant(self, name: str, values: NDArray[Any]) -> Any:
        """The value that a column has in all rows of the cluster."""
        here = values[self.fit._row_order()[self.group.places]]
        if (here != here[0]).any():
            raise DataError(
                f"the covariance depends on {name!r} too, which changes within group "
                f"{self.group.label}: give at= as a table with the column {name!r}"
            )
        return here[0]

    def _new_column(self, table: Table, name: str) -> NDArray[Any]:
        """Values of a column of the residual structure: numbers, or levels that the fit has."""
        old = values_of(self.columns[name])
        if name not in table.names:
            return np.full(table.n_rows, self._constant(name, old))
        new = read_column(name, table.fetch(name), group=True)
        if new.missing is not None:
            raise DataError(f"at= misses a value of {name!r}")
        values = values_of(new)
        if self.columns[name].is_factor != new.is_factor:
            kind = "levels" if self.columns[name].is_factor else "numbers"
            raise DataError(f"{name!r} has {kind} in the fit, but not in at=")
        if new.is_factor:
            return values
        same = values.astype(old.dtype)  # 3.0 where the fit has whole numbers, not 3.5
        return same if np.array_equal(same, values) else values

    def _Z(self, table: Table, n: int) -> Array:
        spec = self.fit.spec
        names = sorted(self._z_columns())
        if not self.fit.z_names:
            return np.empty((n, 0))
        if isinstance(spec, ArraySpec):
            return self._array_Z(table, n)
        assert isinstance(self.design, FormulaDesign)
        filled: dict[str, Any] = {}
        for name in names:
            if name in table.names:
                filled[name] = table.fetch(name)
            else:
                old = values_of(self.design.column(name))
                filled[name] = np.full(n, self._constant(name, old))
        source = open_table(filled) if filled else table
        columns = {name: spec.read(source, name) for name in names}
        made = spec.make(spec.z_parts, RowView(columns, slice(None), n), new_data=True)
        return np.column_stack([as_float(c) for name in spec.z_parts for c in made[name]])

    def _array_Z(self, table: Table, n: int) -> Array:
        old = iter(self.design.batch(slice(None)).as_float().Z)
        columns: list[NDArray[np.float64]] = []
        place = -1
        for names in self.fit.spec.z_names:
            for name in names or (None,):
                place += 1
                if place in self.fit.spec.left_out:
                    continue
                values = next(old)
                if name is None:
                    columns.append(np.ones(n))
                elif name in table.names:
                    columns.append(as_float(read_column(name, table.fetch(name)).values))
                else:
                    columns.append(np.full(n, self._constant(name, values)))
        return np.column_stack(columns)

    # -- places of the kernels' parameters ---------------------------------------------------------

    def _codes(self, name: str, values: NDArray[Any]) -> Index:
        """Positions among the sorted levels that the fit has."""
        levels = self._levels(name)
        code = {level: k for k, level in enumerate(levels.tolist())}
        unknown = [value for value in values.tolist() if value not in code]
        if unknown:
            known = ", ".join(map(str, levels[:10].tolist()))
            raise DataError(f"{name!r} has no level {unknown[0]!r} in the fit; it has {known}")
        return np.array([code[value] for value in values.tolist()], dtype=np.intp)

    def _levels(self, name: str) -> NDArray[Any]:
        column = self.columns[name]
        return np.unique(column.values) if column.levels is None else np.asarray(column.levels)

    def _labels(self, name: str, values: NDArray[Any]) -> list[str]:
        """Levels as they are called among the parameters."""
        self._codes(name, values)
        number = values.dtype.kind == "f"
        return [f"{value:g}" if number else str(value) for value in values.tolist()]

    def _place(self, known: dict[str, NDArray[Any]], n: int) -> tuple[Any, Any]:
        """Positions and coordinates."""
        assert self.model is not None
        parameters = self.model.parameters
        correlation = parameters.correlation
        if correlation is None:
            return None, None
        values = [known[name] for name in correlation.columns]
        if correlation.role == "positions":
            return self._whole(correlation, values[0])
        if correlation.kind in registry.TABLES:
            if not values:
                return np.arange(n), None
            return self._codes(correlation.columns[0], values[0]), None
        return None, np.column_stack(values).astype(float) / parameters.unit

    def _whole(self, correlation: Correlation, values: NDArray[Any]) -> tuple[Any, Any]:
        """Positions that are whole numbers or levels: of a table, or as a coordinate."""
        assert self.model is not None
        name = correlation.columns[0]
        place = self._codes(name, values) if self.columns[name].is_factor else values
        place = np.asarray(place, dtype=float)
        if (place != np.round(place)).any():
            raise DataError(
                f"{self.fit.residual} needs whole numbers, but at= has others for {name!r}"
            )
        if correlation.kind not in registry.TABLES:
            return None, place[:, None]
        place, T = place - place.min(), self.model.parameters.T
        if place.max() >= T:
            raise DataError(
                f"at= goes over {place.max() + 1:g} places of {name!r}, but the data over {T}"
            )
        return place.astype(np.intp), None

    def _G(self, known: dict[str, NDArray[Any]]) -> Array | None:
        assert self.model is not None
        parts = self.model.parameters.variances
        if not parts:
            return None
        return np.column_stack([self._G_of(part, known) for part in parts])

    def _G_of(self, part: VariancePart, known: dict[str, NDArray[Any]]) -> Array:
        """Columns of the log-linear variance model, as `lmmfast.residual.model` makes them."""
        if part.kind == "levels":
            labels = [self._labels(name, known[name]) for name in part.columns]
            crossed = [":".join(row) for row in zip(*labels, strict=True)]
            return self._indicators(part, crossed)[:, 1:]
        v = as_float(known[part.columns[0]])
        if part.kind == "power":
            if (v == 0).any():
                raise DataError(f"at= has a zero of {part.columns[0]!r}, where VarPower fails")
            v = np.log(np.abs(v))
        G = ((v - part.center) / part.scale)[:, None]
        if not part.labels:
            return G
        by = next(
            variance.by
            for variance in self.fit.residual.variances
            if variance.columns == part.columns and variance.by is not None
        )
        return G * self._indicators(part, self._labels(by, known[by]))

    @staticmethod
    def _indicators(part: VariancePart, labels: list[str]) -> Array:
        for label in labels:
            if label not in part.labels:
                raise DataError(f"{':'.join(part.columns)} has no level {label} in the fit")
        return (np.array(labels)[:, None] == np.array(part.labels)).astype(float)

    def _stratum(self, known: dict[str, NDArray[Any]]) -> Stratum:
        assert self.model is not None
        strata = self.model.parameters.strata
        correlation = self.model.parameters.correlation
        if correlation is None or correlation.by is None:
            return strata[0]
        labels = set(self._labels(correlation.by, known[correlation.by]))
        if len(labels) > 1:
            raise DataError(f"at= is about one cluster: {correlation.by!r} must not change")
        (label,) = labels
        return next(stratum for stratum in strata if stratum.label == label)
