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
from lmmfast.implied.implied import Group, Rows, labelled, main_columns, values_of
from lmmfast.residual.model import ResidualModel
from lmmfast.residual.place import Placing, known_columns, used_columns

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


class NewRows:
    """Makes rows of a cluster from a table or from new times; the rest is as in the cluster."""

    def __init__(self, fit: LMMResult, group: Group) -> None:
        self.fit, self.group = fit, group
        self.design = fit._need(fit._design, "implied covariances")
        self.columns = self.design.residual_columns
        self.kinds = known_columns(fit.residual, self.columns)
        self.model: ResidualModel | None = fit._residual_model

    def at(self, at: Any) -> tuple[Rows, Any]:
        """Rows and their labels."""
        given = at if is_table(at) else {self._main(): np.asarray(at)}
        table = open_table(given)
        n = table.n_rows
        known = {name: self._new_column(table, name) for name in used_columns(self.fit.residual)}
        Z, roots = self._Z(table, n), np.full(n, np.sqrt(self.fit._basis.weight_scale))
        names = main_columns(self.fit) or tuple(table.names)
        shown = [known[name] if name in known else np.asarray(table.fetch(name)) for name in names]
        labels = labelled(shown, names)
        if self.model is None:
            return Rows(Z, roots), labels
        placing = Placing(self.fit.residual, self.model.parameters, self.kinds)
        places = placing.places(known, n, new=False)
        if (places.stratum != places.stratum[:1]).any():
            correlation = self.fit.residual.correlation
            assert correlation is not None
            raise DataError(f"at= is about one cluster: {correlation.by!r} must not change")
        stratum = self.model.parameters.strata[places.stratum[0]]
        return Rows(Z, roots, places.G, places.positions, places.coords, stratum), labels

    def _main(self) -> str:
        """The one column that ``at=`` as a plain sequence can mean."""
        names = main_columns(self.fit)
        if not names:
            names = tuple(sorted(self._z_columns()))
        if len(names) == 1:
            return names[0]
        wanted = ", ".join(
            dict.fromkeys([*used_columns(self.fit.residual), *sorted(self._z_columns())])
        )
        if not wanted:
            raise DataError("the covariance depends on no column of the data: leave at= out")
        raise DataError(
            f"give at= as a table with columns {wanted}: the covariance depends on them"
        )

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
        return self.kinds[name].values(new)

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
