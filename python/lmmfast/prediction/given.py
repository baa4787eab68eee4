"""Rows of groups that a fit does not have, or no longer: what they tell of others of theirs.

The posterior of their effects and processes is that under the parameters of the fit, which is not
changed: x'beta + c'V^-1 (y - X beta) with the covariances c and V of these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.columns import read_column
from lmmfast.data.frame import as_float
from lmmfast.data.tables import single_column
from lmmfast.design.from_arrays import ArraySpec
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.prediction.blocks_compressed import CompressedBlocks
from lmmfast.prediction.blocks_structured import StructuredBlocks, check_size
from lmmfast.prediction.derivatives import ThetaParameters
from lmmfast.prediction.lookup import GroupLookup
from lmmfast.prediction.mse import expected_signals
from lmmfast.prediction.new_rows import Predictor, linear_predictor
from lmmfast.prediction.placed import Inputs, place_rows, weights_of
from lmmfast.prediction.process import KnownRows, with_positions
from lmmfast.prediction.rows_used import sds_of
from lmmfast.prediction.targets import Targets, columns_at

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

Index = NDArray[np.intp]
#: What ``given`` of a model fitted to arrays may have.
PARTS = ("y", "X", "groups", "Z", "offset", "weights", "at")


@dataclass(frozen=True, eq=False)
class GivenRows:
    """Rows of some groups, those of a group together.

    Attributes
    ----------
    groups : GroupLookup
        Labels of the m groups.
    within : ndarray of bool (m,)
        Whether the fit has the group: then these are its rows, from which beta was estimated.
    ptr : ndarray (m + 1,)
    X : ndarray (n, p)
    Z : ndarray (n, q)
    r : ndarray (n,)
        y - X beta.
    weights : ndarray (n,)
    known : KnownRows or None
        Their places in the residual structure, if there is one.
    sds : ndarray (n,)
        Standard deviations of the residuals.
    """

    groups: GroupLookup
    within: NDArray[np.bool_]
    ptr: NDArray[np.int64]
    X: Array
    Z: Array
    r: Array
    weights: Array
    known: KnownRows | None
    sds: Array

    def signals(self, fit: LMMResult, targets: Targets, own: Index) -> Array:
        """Expected signals (N,) beside X beta, of targets in groups ``own``; zero for -1.

        Raises
        ------
        DataError
            A covariance matrix without an inverse.
        """
        out = np.zeros(len(own))
        theta = ThetaParameters(fit)
        try:
            for block in self.blocks(fit, theta, np.eye(len(fit.x_names)), targets, own):
                out[block.targets] = expected_signals(block, block.r)
        except np.linalg.LinAlgError:
            raise DataError(
                "given= has rows of a group whose errors have correlation one: two rows at one "
                "visit or time"
            ) from None
        return out

    def blocks(
        self, fit: LMMResult, theta: ThetaParameters, G: Array, targets: Targets, own: Index
    ) -> list[CompressedBlocks | StructuredBlocks]:
        """Blocks that targets in groups ``own`` (N,) are correlated with; -1: none of these."""
        found: list[CompressedBlocks | StructuredBlocks] = []
        for within in (True, False):
            at = np.flatnonzero((own >= 0) & (self.within[own] == within))
            if not len(at):
                continue
            if self.known is None:
                found.append(self._compressed(fit, theta, G, targets, at, own[at], within))
            else:
                found += self._structured(self.known, theta, G, targets, at, own[at], within)
        for block in found:
            block.r, block.Xg = block.Xg[..., -1], block.Xg[..., :-1]
        return found

    def _compressed(
        self,
        fit: LMMResult,
        theta: ThetaParameters,
        G: Array,
        targets: Targets,
        at: Index,
        own: Index,
        within: bool,
    ) -> CompressedBlocks:
        z_map = fit._basis.z_map()
        Z = self.Z @ z_map
        ZW = Z * (self.weights / fit._basis.weight_scale)[:, None]
        columns = np.column_stack([self.X @ G, self.r])
        first = self.ptr[:-1]
        ZWZ = np.add.reduceat(ZW[:, :, None] * Z[:, None, :], first, axis=0)
        ZWA = np.add.reduceat(ZW[:, :, None] * columns[:, None, :], first, axis=0)
        return CompressedBlocks(theta, z_map, ZWZ, ZWA, fit._unit, targets, at, own, within)

    def _structured(
        self,
        known: KnownRows,
        theta: ThetaParameters,
        G: Array,
        targets: Targets,
        at: Index,
        own: Index,
        within: bool,
    ) -> list[CompressedBlocks | StructuredBlocks]:
        columns = np.column_stack([self.X @ G, self.r])
        found: list[CompressedBlocks | StructuredBlocks] = []
        for stratum, some, rows in known.batches():
            of_batch = np.full(len(self.within), -1)
            of_batch[some] = np.arange(len(some))
            here = np.flatnonzero(of_batch[own] >= 0)
            if len(here):
                places = at[here], of_batch[own[here]]
                block = StructuredBlocks(
                    known, stratum, rows, self.Z, columns, self.sds, theta, targets, *places, within
                )
                found.append(block)
        return found


def read_given(fit: LMMResult, own: Predictor, given: Any, warn: bool = True) -> GivenRows:
    """Read the rows of ``given``; those with a missing value are left out.

    Raises
    ------
    UnsupportedModelError
        Several grouping factors.
    DataError
        No rows, columns that are not there, two rows at one visit or time.
    """
    if len(fit.nested_in) > 1:
        raise UnsupportedModelError(
            "given= is for models with one grouping factor: append() the rows, or refit"
        )
    inputs, table, y = _open(fit, given)
    inputs = replace(inputs, warn=warn)
    rows = own.read(
        table, "population", inputs.groups, inputs.Z, inputs.offset, warn=False, random=True
    )
    n = rows.batch.n_rows
    if len(y) != n:
        raise DataError(f"given= has {len(y)} responses for {n} rows")
    usable = ~rows.left_out & ~np.isnan(y)
    weights = weights_of(fit, table, inputs, n)
    structured = not fit.residual.is_independent
    placed = place_rows(fit, table, inputs, usable) if structured else None
    some = np.flatnonzero(usable & ~np.isnan(weights)) if placed is None else placed.rows
    if not len(some):
        raise DataError("given= has no row without a missing value")
    labels, codes = np.unique(rows.keys[0].of_rows(some), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    some, codes = some[order], codes[order]
    ptr = np.append(0, np.cumsum(np.bincount(codes))).astype(np.int64)
    within = rows.positions[0][some[ptr[:-1]]] >= 0
    batch = rows.batch
    mean = linear_predictor(batch.X, own.keep, own.beta, n)
    mean = mean if batch.offset is None else mean + batch.offset
    mean = mean if inputs.offset is None else mean + own.offset(inputs.offset, n)
    r = (y - mean)[some]
    if not np.isfinite(r).all():
        row = int(some[np.argmin(np.isfinite(r))])
        raise DataError(f"given= has values in row {row} (counting from 0) that are not finite")
    known: KnownRows | None = None
    sds = np.broadcast_to(sds_of(fit, None, weights[some]), (len(some),))
    if placed is not None:
        theta = ThetaParameters(fit)
        assert theta.residual is not None
        check_size(int(np.diff(ptr).max()))
        places, sds = placed.places.take(order), placed.sds[order]
        stratum = places.stratum[ptr[:-1]]
        if (places.stratum != np.repeat(stratum, np.diff(ptr))).any():
            raise DataError("given=: the column of by= changes within a group")
        places = with_positions(theta.residual, places, ptr)
        known = KnownRows(theta.residual, theta.kappa, ptr, stratum, places)
    return GivenRows(
        GroupLookup(labels),
        within,
        ptr,
        columns_at([batch.X[j] for j in own.keep], some),
        columns_at(batch.Z, some),
        r,
        weights[some],
        known,
        sds,
    )


def _open(fit: LMMResult, given: Any) -> tuple[Inputs, Any, Array]:
    """Inputs, table or X, and response (n,), NaN where it is missing."""
    if isinstance(fit.spec, ArraySpec):
        if not isinstance(given, Mapping) or not {"y", "X", "groups"} <= set(given):
            raise DataError(
                "given= of a model fitted to arrays must be a dict with y, X, groups and, as they "
                "are needed, Z, offset, weights, at"
            )
        unknown = [name for name in given if name not in PARTS]
        if unknown:
            raise DataError(f"given= has {unknown[0]!r}: it may have {', '.join(PARTS)}")
        column = read_column("y", single_column("y", given["y"]))
        if column.is_factor:
            raise DataError("y of given= must be numbers")
        y = as_float(column.values)
        y = y if column.missing is None else np.where(column.missing, np.nan, y)
        others = {name: given[name] for name in PARTS[2:] if name in given}
        return Inputs(**others), given["X"], y
    if fit.spec.offset_array:
        raise UnsupportedModelError(
            "given= of a fit whose offset was an array: make the offset a column of the data, and "
            "refit"
        )
    return Inputs(), given, fit.spec.response(given)
