"""More rows for a fitted model: they join the compressed clusters of the fit, which goes on.

The rows of the fit are not needed, and none are kept. Working basis, levels and what transforms
have learnt stay those of the fit; where they would not do for all rows together, an error says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.covariance.terms import Term
from lmmfast.data.batch import CHUNK, Batch
from lmmfast.data.columns import Column
from lmmfast.data.frame import Rows
from lmmfast.data.keys import GroupKeys, check_key_kind
from lmmfast.data.tables import is_table, open_table
from lmmfast.design.design import Design
from lmmfast.design.from_arrays import ArrayDesign, ArraySpec
from lmmfast.design.from_formula import FormulaDesign
from lmmfast.engines.moments import MomentsEngine
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.fitting.options import Options
from lmmfast.fitting.pipeline import fit_prepared
from lmmfast.fitting.prepare import prepared
from lmmfast.grouping.clusters import Clusters, gather
from lmmfast.packing.basis import Basis, adds_up_to_one, take_sample
from lmmfast.packing.compress import CompressedClusters
from lmmfast.packing.grow import Joined, Touched, grow, join
from lmmfast.search.estimates import independent_columns

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

# A column of the new rows that lies this far from those of the fit, in their standard deviations,
# and varies less than this against its distance, would lose more than four digits.
FAR = 1e4
# The least part of a column of X, squared, that must lie beyond the other columns.
COLLINEAR = 1e-6

_ANEW = "; fit all the data anew"


@dataclass(frozen=True)
class RowlessDesign:
    """A model whose rows are gone: they were compressed, in several parts."""

    spec: Any
    terms: tuple[Term, ...]
    x_names: tuple[str, ...]
    y_name: str
    group_name: str
    n_obs: int
    n_dropped: int
    missing_counts: dict[str, int]
    unit: int | None
    index: None = None
    random_access: bool = False
    kept: None = None
    residual: None = None
    dropped_effects: tuple[str, ...] = ()

    @property
    def keys(self) -> GroupKeys:
        """Refuse."""
        self._refuse()

    @property
    def factor_keys(self) -> list[GroupKeys]:
        """Refuse."""
        self._refuse()

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Name of the grouping factor."""
        return (self.group_name,)

    @property
    def legend(self) -> dict[str, str]:
        """Return nothing: the fit that the rows were appended to has said it."""
        return {}

    @property
    def residual_columns(self) -> dict[str, Column]:
        """Return none: residuals are independent."""
        return {}

    def batch(self, rows: Rows) -> Batch:
        """Refuse."""
        self._refuse()

    def held_columns(self) -> tuple[list[Column], list[Column]]:
        """Return none: there are no rows."""
        return [], []

    @property
    def n_rows(self) -> int:
        """Refuse."""
        self._refuse()

    def report(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any]:
        """Refuse."""
        self._refuse()

    def original_row(self, row: int) -> int:
        """Refuse."""
        self._refuse()

    def empty_effects(self) -> list[int]:
        """Return none: they were looked for in each part."""
        return []

    def without_effects(self, columns: Sequence[int]) -> Design:
        """Refuse."""
        self._refuse()

    def with_response(self, y: NDArray[np.float64]) -> Design:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise DataError(
            "this needs the rows of the fit, and a fit with appended rows holds none: use "
            "predict(data), or fit all the data anew"
        )


def append(
    fit: LMMResult,
    data: Any,
    X: Any,
    groups: Any,
    Z: Any,
    weights: Any,
    offset: Any,
    missing: str | None,
    options: Options,
    in_place: bool = False,
) -> LMMResult:
    """Fit the rows of a fit and new ones together; see `LMMResult.append`."""
    engine = fit._need(fit._engine, "appended rows")
    clusters = fit._need(fit._clusters, "appended rows")
    before = fit._need(fit._design, "appended rows")
    if len(before.factor_names) > 1:
        raise UnsupportedModelError(
            "rows cannot be appended to a fit with several grouping factors "
            f"({', '.join(map(repr, before.factor_names))}){_ANEW}"
        )
    if not fit.residual.is_independent:
        raise UnsupportedModelError(
            f"rows cannot be appended to a fit with residual={fit.residual}{_ANEW}"
        )
    if not isinstance(engine, MomentsEngine):
        raise DataError(f"rows cannot be appended with engine={engine.name!r}{_ANEW}")
    design = _as_in_the_fit(fit, _design(fit, data, X, groups, Z, weights, offset, missing))
    packed = engine.clusters
    _check_constants(design, packed.basis)
    sample = take_sample(design)
    _check_distance(design, sample, packed.basis)
    part = gather(design.keys)
    joined = join(clusters, part)
    touched = Touched(packed.blocks, joined) if in_place and packed.blocks.flags.writeable else None
    try:
        new = _fit_grown(fit, before, design, packed, part, joined, sample, options, touched)
    except BaseException:  # an interrupt too
        if touched is not None:
            touched.restore()
        raise
    if in_place:
        give_away(fit)
    return new


def give_away(fit: LMMResult) -> None:
    """Leave a fit without the clusters that another one goes on with."""
    fit._design = fit._clusters = fit._engine = fit._fingerprints = None


def _fit_grown(
    fit: LMMResult,
    before: Design,
    design: Design,
    packed: CompressedClusters,
    part: Clusters,
    joined: Joined,
    sample: Batch,
    options: Options,
    touched: Touched | None,
) -> LMMResult:
    """Let the clusters grow and search."""
    threads = n_threads(options.n_jobs)
    total = grow(packed, design, part, joined, threads, touched)
    total = replace(total, basis=_suit_size(total.basis, sample))
    check_columns(before, packed, total)
    everything = RowlessDesign(
        spec=before.spec,
        terms=before.terms,
        x_names=before.x_names,
        y_name=before.y_name,
        group_name=before.group_name,
        n_obs=total.n_obs,
        n_dropped=before.n_dropped + design.n_dropped,
        missing_counts=_added(before.missing_counts, design.missing_counts),
        unit=before.unit,
        dropped_effects=before.dropped_effects,
    )
    data_ready = prepared(total, threads)
    return fit_prepared(everything, joined.clusters, fit._covariance, data_ready, options)


def _added(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    return {name: old.get(name, 0) + new.get(name, 0) for name in {**old, **new}}


def _design(
    fit: LMMResult,
    data: Any,
    X: Any,
    groups: Any,
    Z: Any,
    weights: Any,
    offset: Any,
    missing: str | None,
) -> Design:
    """Columns of the new rows, as the model of the fit makes them."""
    spec = fit.spec
    if not isinstance(spec, ArraySpec):
        if X is not None or groups is not None or Z is not None:
            raise DataError("the fit was made from a formula: append a table, without X, groups, Z")
        weights = spec.weights_name if weights is None else weights
        offset = spec.offset_name if offset is None else offset
        _check_as_before("weights", fit.weighted, weights)
        _check_as_before("offset", spec.offset_array or spec.offset_name is not None, offset)
        return FormulaDesign.more(
            spec.everything or spec, data, weights=weights, offset=offset, missing=missing or "drop"
        )
    if X is None or groups is None:
        raise DataError("the fit was made from arrays: append(y, X, groups, Z)")
    if Z is None and spec.z_names[0] is not None:
        raise DataError(f"the model needs Z with columns {', '.join(spec.z_names[0])}")
    if Z is not None and spec.z_names[0] is None:
        raise DataError("the fit had a random intercept and no Z: leave Z out")
    _check_as_before("weights", fit.weighted, weights)
    _check_as_before("offset", spec.offset_array, offset)
    design = ArrayDesign(
        data,
        _in_order(X, "X", spec.x_names),
        groups,
        None if spec.z_names[0] is None else _in_order(Z, "Z", spec.z_names[0]),
        weights=weights,
        offset=offset,
        x_names=spec.x_names,
        z_names=spec.z_names[0],
        y_name=fit.y_name,
        group_name=spec.group_name,
        missing=missing or "raise",
        part=True,
    )
    check_key_kind(design.keys, spec.text_keys[0], spec.group_name)
    return design


def _as_in_the_fit(fit: LMMResult, design: Design) -> Design:
    """Leave out the columns of Z that were zero in the fit, and must be here."""
    left_out = fit.spec.left_out
    filled = set(left_out).difference(design.empty_effects()) if left_out else set()
    if filled:
        names = [name for term in design.terms for name in term.names]
        raise DataError(
            f"the column {names[min(filled)]!r} of Z was zero in every row of the fit, which left "
            f"it out, and is not in the new rows{_ANEW}"
        )
    return design.without_effects(left_out) if left_out else design


def _check_as_before(role: str, had: bool, given: Any) -> None:
    """Weights and offset are there for all rows or for none."""
    if had and given is None:
        raise DataError(f"the fit had {role} given as an array: give those of the new rows too")
    if not had and given is not None:
        raise DataError(f"the fit had no {role}: leave {role}= out, or fit all the data anew")


def _in_order(data: Any, role: str, names: Sequence[str]) -> Any:
    """Columns of a table in the order of the fit; arrays have it."""
    if not is_table(data):
        return data
    table = open_table(data)
    absent = [name for name in names if name not in table.names]
    if absent:
        raise DataError(f"the new {role} has no column {absent[0]!r}")
    if list(table.names) == list(names):
        return data
    return {name: table.fetch(name) for name in names}


def _check_constants(design: Design, basis: Basis) -> None:
    """Columns that were constant in the fit, about which the basis is built, must be so here."""
    if basis.unit is not None and design.unit is None and not adds_up_to_one(design, basis.unit):
        unit = ", ".join(repr(design.x_names[j]) for j in basis.unit_columns)
        raise DataError(
            f"the columns {unit} of X made up a constant in every row of the fit, and do not in "
            f"the new rows{_ANEW}"
        )
    names = [name for term in design.terms for name in term.names]
    shifted = basis.z_units >= 0
    constants = dict(zip(basis.z_units[shifted], basis.z_unit_values[shifted], strict=True))
    for start in range(0, design.n_obs if constants else 0, CHUNK):
        batch = design.batch(slice(start, min(start + CHUNK, design.n_obs)))
        for c, value in constants.items():
            if batch.Z[c].strides != (0,) and not bool(np.all(batch.Z[c] == value)):
                raise DataError(
                    f"the column {names[c]!r} of Z was {value:g} in every row of the fit, and is "
                    f"not in the new rows{_ANEW}"
                )


def _check_distance(design: Design, sample: Batch, basis: Basis) -> None:
    """Refuse columns that have moved so far that the shifts of the basis cancel nothing."""
    A, Z, _ = basis.working(sample)
    if not (np.isfinite(A).all() and np.isfinite(Z).all()):
        return  # compression meets the same numbers and names them
    z_names = [name for term in design.terms for name in term.names]
    for name, x in zip([*design.x_names, *z_names], [*A[:, :-1].T, *Z.T], strict=True):
        distance = float(np.sqrt(np.mean(x**2)))
        spread = float(np.std(x))
        if distance > FAR and 1e-13 * distance < spread < distance / FAR:
            raise DataError(
                f"column {name!r} of the new rows lies about {distance:.0e} standard deviations "
                f"from that of the fit and varies little there, so that digits would be lost{_ANEW}"
            )


def _suit_size(basis: Basis, sample: Batch) -> Basis:
    """Note the largest response, which rounding is relative to, of the new rows too."""
    assert sample.y is not None
    y = sample.y if sample.offset is None else sample.y - sample.offset
    return replace(basis, y_size=max(basis.y_size, float(np.max(np.abs(y))) / basis.y_scale))


def check_columns(before: Design, packed: CompressedClusters, total: CompressedClusters) -> None:
    """Refuse where another basis would be chosen for X of all rows together."""
    basis = total.basis
    keep = independent_columns(total.gram[:-1, :-1], basis)
    free = replace(basis, excluded=np.empty(0, dtype=np.intp))
    found = np.setdiff1d(independent_columns(total.gram[:-1, :-1], free), keep)
    if len(found):
        raise DataError(
            f"column {before.x_names[found[0]]!r} of X, which the fit dropped, is not determined "
            f"by the others in the new rows{_ANEW}"
        )
    lost = basis.involved(np.setdiff1d(np.arange(len(before.x_names)), keep))
    if len(lost):
        raise DataError(
            f"column {before.x_names[lost[0]]!r} of X is determined by the others in all rows "
            f"together, as far as can be seen{_ANEW}"
        )
    beyond = _beyond_others(total.gram, keep)
    worst = int(np.argmin(beyond)) if len(keep) else 0
    if len(keep) and beyond[worst] < min(COLLINEAR, 0.1 * _beyond_others(packed.gram, keep)[worst]):
        raise DataError(
            f"column {before.x_names[keep[worst]]!r} of X is nearly determined by the others with "
            f"the new rows, so that digits would be lost{_ANEW}"
        )


def _beyond_others(gram: Array, keep: NDArray[np.intp]) -> Array:
    """Part of each column's sum of squares that lies beyond the other columns."""
    scale = np.sqrt(np.diag(gram)[keep])
    scale[scale == 0] = 1.0
    values, vectors = np.linalg.eigh(gram[np.ix_(keep, keep)] / np.outer(scale, scale))
    return np.asarray(1.0 / (vectors**2 @ (1.0 / np.maximum(values, 1e-16))))
