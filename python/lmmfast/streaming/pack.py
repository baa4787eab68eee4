"""From parts of whole groups to packed clusters: one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.design.from_formula import FormulaDesign
from lmmfast.errors import DataError
from lmmfast.formula.spec import FormulaSpec
from lmmfast.grouping.clusters import Clusters, gather
from lmmfast.packing.basis import Basis, adds_up_to_one
from lmmfast.packing.compress import (
    CompressedClusters,
    SampleMisledError,
    common,
    compress_once,
)
from lmmfast.packing.grow import extend
from lmmfast.streaming.cuts import Part
from lmmfast.streaming.store import BlockStore, ScratchFolder


class MisledByRowError(SampleMisledError):
    """A row that the sample should have had, a table of one row."""

    def __init__(self, row: Any) -> None:
        super().__init__()
        self.row = row


@dataclass(frozen=True)
class Packed:
    """All parts together.

    Attributes
    ----------
    packed : CompressedClusters
    clusters : Clusters
    empty : tuple of int
        Columns of Z that are zero in all rows.
    folder : ScratchFolder or None
        Of the file with the packed clusters.
    """

    packed: CompressedClusters
    clusters: Clusters
    empty: tuple[int, ...]
    folder: ScratchFolder | None


def design_of(spec: FormulaSpec, table: Any) -> FormulaDesign:
    """Columns of the model for complete rows."""
    return FormulaDesign.more(
        spec, table, weights=spec.weights_name, offset=spec.offset_name, missing="raise"
    )


def pack(
    parts: Iterable[Part],
    spec: FormulaSpec,
    basis: Basis,
    store: BlockStore,
    n_threads: int,
) -> Packed:
    """Pack all parts in a basis.

    Parameters
    ----------
    parts : iterable of Part
        Complete rows, no group in two parts unless one continues it.

    Raises
    ------
    DataError
        Naming file and row group; or a group is in two parts.
    MisledByRowError
        The basis took columns for constant that are not.
    """
    sums = _Sums(spec, basis, store, n_threads)
    for table, place, continues in parts:
        try:
            if continues:
                sums.extend(table)
            else:
                sums.add(table)
        except SampleMisledError:
            raise
        except DataError as error:
            raise DataError(f"{error} [rows counted from the part beginning in {place}]") from None
    return sums.total()


class _Sums:
    """Packed clusters of the parts so far."""

    def __init__(self, spec: FormulaSpec, basis: Basis, store: BlockStore, n_threads: int) -> None:
        self._spec, self._basis, self._store, self._threads = spec, basis, store, n_threads
        self._q, p1 = len(basis.z_scale), len(basis.x_scale) + 1
        self._gram, self._perp = np.zeros((p1, p1)), np.zeros((p1, p1))
        self._log_weights, self._rank_Z, self._m = 0.0, 0, 0
        self._z_in_x: list[int] = []
        self._column = np.triu_indices(self._q)[1]
        self._filled = np.zeros(self._q, dtype=bool)
        self._keys: list[NDArray[Any]] = []
        self._sizes: list[NDArray[np.int64]] = []
        self._named = False

    def add(self, table: Any) -> None:
        design = design_of(self._spec, table)
        part = gather(design.keys)
        lead = self._m % core.lanes  # empty clusters for lanes that are taken
        zeros = np.zeros(lead, dtype=np.int64)
        padded = Clusters(np.zeros(lead + part.m), None, np.append(zeros, part.ptr), part.order)
        self._check_unit(design, table)
        try:
            added = compress_once(design, padded, self._basis, self._threads)
        except SampleMisledError:
            row = _first_unexpected(design, self._basis)
            raise MisledByRowError(table.slice(row, 1)) from None
        self._store.add(added.blocks, joins=lead > 0)
        roots = added.blocks[:, : len(self._column)].any(axis=(0, 2))  # the R_i, by rows
        np.logical_or.at(self._filled, self._column, roots)
        self._gram += added.gram
        self._perp += added.perp
        self._log_weights += added.log_weights
        self._rank_Z += added.rank_Z
        self._z_in_x = common(self._z_in_x, added.z_in_x) if self._m else added.z_in_x
        self._m += part.m
        self._keys.append(part.labels)
        self._sizes.append(part.sizes)
        self._named = part.names is not None

    def extend(self, table: Any) -> None:
        """Add rows of the last group: stacked below what is kept of it, and reduced again."""
        design = design_of(self._spec, table)
        self._check_unit(design, table)
        row = _first_unexpected(design, self._basis)
        if row < design.n_obs:
            raise MisledByRowError(table.slice(row, 1))
        last, ends = self._store.last[None], np.array([0, design.n_obs])
        at = np.array([(self._m - 1) % core.lanes])
        order = np.arange(design.n_obs)
        total = extend(self._so_far(last, core.lanes), design, ends, order, at, self._threads)
        self._gram, self._perp = total.gram, total.perp
        self._log_weights, self._rank_Z = total.log_weights, total.rank_Z
        self._z_in_x = total.z_in_x
        roots = last[:, : len(self._column)].any(axis=(0, 2))
        np.logical_or.at(self._filled, self._column, roots)
        self._sizes[-1] = self._sizes[-1].copy()
        self._sizes[-1][-1] += design.n_obs

    def _so_far(self, blocks: Array, m: int) -> CompressedClusters:
        return CompressedClusters(
            blocks=blocks,
            q=self._q,
            p1=len(self._gram),
            m=m,
            n_obs=int(sum(map(np.sum, self._sizes))),
            gram=self._gram,
            perp=self._perp,
            log_weights=self._log_weights,
            rank_Z=self._rank_Z,
            basis=self._basis,
            z_in_x=self._z_in_x,
        )

    def _check_unit(self, design: FormulaDesign, table: Any) -> None:
        """Indicators that add up to one in the sample must do so everywhere."""
        unit = self._basis.unit
        if unit is None or design.unit is not None or self._basis.x_expected is not None:
            return
        if not adds_up_to_one(design, unit):
            X = design.batch(slice(None)).as_float().X
            total = sum(unit[j] * X[j] for j in np.flatnonzero(unit))
            row = int(np.argmax(~np.isclose(total, 1.0, rtol=0, atol=1e-12)))
            raise MisledByRowError(table.slice(row, 1))

    def total(self) -> Packed:
        if not self._m:
            raise DataError("the data have no complete rows")
        clusters = _whole(self._keys, self._sizes, self._named)
        packed = self._so_far(self._store.blocks(), self._m)
        empty = tuple(np.flatnonzero(~self._filled).tolist())
        return Packed(packed, clusters, empty, self._store.folder)


def _first_unexpected(design: FormulaDesign, basis: Basis) -> int:
    """Row in which a column is first not the constant that it was taken for."""
    batch = design.batch(slice(None)).as_float()
    rows = [design.n_obs]
    for columns, expected in ((batch.X, basis.x_expected), (batch.Z, basis.z_expected)):
        if expected is None:
            continue
        for j in np.flatnonzero(~np.isnan(expected)):
            other = columns[j] != expected[j]
            rows.append(int(np.argmax(other)) if other.any() else design.n_obs)
    return min(rows)


def _whole(keys: list[NDArray[Any]], sizes: list[NDArray[np.int64]], named: bool) -> Clusters:
    """Clusters of all parts, in their order.

    Raises
    ------
    DataError
        A group is in two parts.
    """
    values = np.concatenate(keys)
    ptr = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
    if bool(np.all(values[:-1] < values[1:])):
        return Clusters(
            np.arange(len(values)) if named else values, values if named else None, ptr, None
        )
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    twice = np.flatnonzero(ascending[1:] == ascending[:-1])
    if len(twice):
        raise DataError(
            f"the rows of group {ascending[twice[0]]!r} do not stand together: "
            "leave sorted=True out"
        )
    if not named:
        return Clusters(values, None, ptr, None)
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values))
    return Clusters(rank, ascending, ptr, None)


def field_count(q: int, p1: int) -> int:
    """Numbers of a packed cluster."""
    return q * (q + 1) // 2 + q * p1
