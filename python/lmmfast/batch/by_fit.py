"""Fits of one model to each of many segments: most of them in the core, the others one at a time.

The columns of all segments are made at once, by one design, and the core fits each segment's rows.
Whatever is out of the ordinary in a segment (a level of a factor that it lacks, dependent columns,
an error) is found when the segment is fitted by itself, as `lmmfast.lmm` would.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast._threads import n_threads
from lmmfast.batch.by_models import SegmentModels, SharedModel
from lmmfast.covariance.terms import BlockCovariance, natural_names
from lmmfast.data.batch import Batch
from lmmfast.data.keys import renumber
from lmmfast.design.from_formula import FormulaDesign
from lmmfast.errors import LmmError
from lmmfast.fitting.options import Options
from lmmfast.fitting.pipeline import fit_design
from lmmfast.fitting.prepare import choose_covariance
from lmmfast.formula.by_segment import usable
from lmmfast.formula.parse import ParsedFormula
from lmmfast.grouping.clusters import gather_segments
from lmmfast.grouping.segments import Segments
from lmmfast.packing.basis import SAMPLE_ROWS
from lmmfast.prediction.predict import predictor
from lmmfast.progress import Reporter
from lmmfast.result import LMMResult
from lmmfast.search.certificate import converged_status
from lmmfast.search.optimum import MOST_EVALUATIONS, compiled_terms, is_compiled

CHUNK_ROWS = 1 << 20  # whose columns are in memory at once

Ints = NDArray[np.int64]


class NamedColumns:
    """Numbers of S segments by name; NaN where a segment has no such number."""

    def __init__(self, n_segments: int) -> None:
        self.n_segments = n_segments
        self.columns: dict[str, NDArray[np.float64]] = {}

    def put(self, names: Any, segments: Any, values: NDArray[Any]) -> None:
        """Set the numbers (..., names) of one segment or of several."""
        for j, name in enumerate(names):
            if name not in self.columns:
                self.columns[name] = np.full(self.n_segments, np.nan)
            self.columns[name][segments] = values[..., j]


@dataclass
class Records:
    """What is known about each of S segments.

    Attributes
    ----------
    params, bse, theta : NamedColumns
    llf, nobs, ngroups, evaluations, converged, status : ndarray (S,)
        ``status`` is that of the certificate, or the message of an error.
    factor_groups : dict of ndarray (S,)
        With several grouping factors the number of groups of each, instead of ``ngroups``.
    failed, warnings : dict of int to str
        Messages of errors and warnings, by segment.
    n_dropped : int
    missing_counts : dict
    models : SegmentModels
        What the segments predict with.
    """

    n_segments: int
    n_dropped: int = 0
    missing_counts: dict[str, int] = field(default_factory=dict)
    factor_groups: dict[str, Ints] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    warnings: dict[int, str] = field(default_factory=dict)
    models: SegmentModels = field(default_factory=SegmentModels)

    def __post_init__(self) -> None:
        S = self.n_segments
        self.params, self.bse, self.theta = (NamedColumns(S) for _ in range(3))
        self.llf = np.full(S, np.nan)
        self.nobs, self.ngroups, self.evaluations = np.zeros((3, S), dtype=np.int64)
        self.converged = np.zeros(S, dtype=bool)
        self.status = np.full(S, "", dtype=object)

    def drop(self, n: int, counts: dict[str, int]) -> None:
        """Count rows left out."""
        self.n_dropped += n
        for name, count in counts.items():
            self.missing_counts[name] = self.missing_counts.get(name, 0) + count

    def fail(self, segment: int, error: Exception) -> None:
        """Note that a segment has no fit."""
        self.failed[segment] = self.status[segment] = str(error)

    def put(self, segment: int, fit: LMMResult) -> None:
        """Note the fit of one segment."""
        self.params.put(fit.x_names, segment, fit.params.to_numpy())
        self.bse.put(fit.x_names, segment, fit.bse.to_numpy())
        self.theta.put(fit.theta_names, segment, fit.theta.to_numpy())
        self.llf[segment] = fit.llf
        self.nobs[segment] = fit.nobs
        self.evaluations[segment] = fit.certificate.evaluations
        self.converged[segment] = fit.converged
        self.status[segment] = fit.certificate.status
        counts = [m for m, _ in fit._grouping.values()]
        if len(counts) == 1:
            self.ngroups[segment] = counts[0]
            return
        for name, m in zip(fit._grouping, counts, strict=True):
            self.factor_groups.setdefault(name, np.zeros_like(self.nobs))[segment] = m


class SegmentFitter:
    """One model for each of many segments.

    Parameters
    ----------
    formula : ParsedFormula
    segments : Segments
    options : Options
    missing, D
        See `lmmfast.lmm`.
    """

    def __init__(
        self, formula: ParsedFormula, segments: Segments, options: Options, missing: str, D: Any
    ) -> None:
        self.formula, self.segments, self.options = formula, segments, options
        self._missing, self._D = missing, D
        self._threads = n_threads(options.n_jobs)

    def design(self, first: int, end: int) -> FormulaDesign:
        """Make the design of segments first ... end - 1."""
        part = self.segments.part(first, end)
        return FormulaDesign(self.formula, missing=self._missing, D=self._D, **part)

    def fit(self, segment: int) -> LMMResult:
        """Fit one segment by itself."""
        silent = replace(self.options, reporter=Reporter(log=False))
        return fit_design(self.design(segment, segment + 1), silent)

    def fit_all(self) -> Records:
        """Fit all segments.

        Raises
        ------
        LmmError
            The data as a whole, the first and the last segment have this error in common.
        """
        records = Records(len(self.segments))
        records.drop(self.segments.n_dropped, self.segments.missing_counts)
        with self.options.reporter.stage("segments", "segments", len(self.segments)) as stage:
            self.stage = stage
            self._fit_part(0, len(self.segments), records)
        return records

    def _design_and_covariance(self, first: int, end: int) -> tuple[FormulaDesign, BlockCovariance]:
        design = self.design(first, end)
        return design, choose_covariance(design)

    def _fit_part(self, first: int, end: int, records: Records) -> None:
        """Fit segments first ... end - 1; where they have no design, each half by itself."""
        try:
            design, covariance = self._design_and_covariance(first, end)
        except LmmError as error:
            if end - first == len(self.segments) and self._is_common(error):
                raise
            if end - first == 1:
                records.fail(first, error)
                self.stage.advance(1)
                return
            middle = (first + end) // 2
            self._fit_part(first, middle, records)
            self._fit_part(middle, end, records)
            return
        records.drop(design.n_dropped, design.missing_counts)
        fitted = PartFitter(self, design, covariance, first, end).fit(records)
        for segment in first + np.flatnonzero(~fitted):
            self._fit_alone(int(segment), records)
            self.stage.advance(1)

    def _is_common(self, error: LmmError) -> bool:
        """Whether the first and the last segment have the error of the whole."""
        for segment in (0, len(self.segments) - 1):
            try:
                self._design_and_covariance(segment, segment + 1)
            except LmmError as other:
                if str(other) == str(error):
                    continue
            return False
        return True

    def _fit_alone(self, segment: int, records: Records) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                fit = self.fit(segment)
                own = predictor(fit, "conditional")
                records.put(segment, fit)
                records.models.alone[segment] = own
            except (LmmError, ValueError) as error:
                records.fail(segment, error)
        if caught:
            messages = dict.fromkeys(str(warning.message) for warning in caught)
            records.warnings[segment] = "; ".join(messages)


class PartFitter:
    """Neighbouring segments with one design, in the core.

    Parameters
    ----------
    fitter : SegmentFitter
    design : FormulaDesign
        Of segments first ... end - 1.
    """

    def __init__(
        self,
        fitter: SegmentFitter,
        design: FormulaDesign,
        covariance: BlockCovariance,
        first: int,
        end: int,
    ) -> None:
        self._design, self._covariance, self._first = design, covariance, first
        self._options, self._threads, self._stage = fitter.options, fitter._threads, fitter.stage
        starts = fitter.segments.starts[first : end + 1] - fitter.segments.starts[first]
        self._rows = np.diff(starts)  # of each segment, used or not
        if design.kept is not None:
            starts = np.searchsorted(design.kept, starts)
        self._starts = starts  # rows used of the design

    def fit(self, records: Records) -> NDArray[np.bool_]:
        """Fit what the core can fit; which segments it did, (S,)."""
        sizes = np.diff(self._starts)
        if len(self._design.factor_names) > 1:
            records.nobs[self._first : self._first + len(sizes)] = sizes
            return np.zeros(len(sizes), dtype=bool)
        self._ptr, self._order, self._cluster_starts = gather_segments(
            self._design.keys.values, self._starts
        )
        here = slice(self._first, self._first + len(sizes))
        records.nobs[here], records.ngroups[here] = sizes, np.diff(self._cluster_starts)
        fitted = np.zeros(len(sizes), dtype=bool)
        self._suited = self._find_suited(sizes)
        if self._suited.any():
            self._beta = np.empty((len(sizes), len(self._design.x_names)))
            self._effects = np.empty((len(self._ptr) - 1, self._covariance.q))
            self._fit_rows(0, len(sizes), fitted, records)
        if fitted.any():
            records.models.shared.append(self._model(fitted))
        return fitted

    def _find_suited(self, sizes: Ints) -> NDArray[np.bool_]:
        """Segments of which the columns are those that a design of their own would have."""
        design = self._design
        if not (len(design.x_names) > 0 and is_compiled(self._covariance)):
            return np.zeros(len(sizes), dtype=bool)
        states = design.learnt_by(self._starts)
        if states is None:
            return np.zeros(len(sizes), dtype=bool)
        self._states = states
        self._spec = design.spec
        suited = (sizes > 0) & (sizes <= SAMPLE_ROWS) & usable(states, len(sizes))
        if states:
            row_segments = np.repeat(np.arange(len(sizes)), self._rows)
            self._design = design.with_segments(states, row_segments)
        for column in design.factors:
            codes = column.values if design.kept is None else column.values[design.kept]
            assert column.levels is not None
            suited &= _have_all_levels(codes, len(column.levels), sizes)
        return suited

    def _fit_rows(self, a: int, b: int, fitted: NDArray[np.bool_], records: Records) -> None:
        """Fit segments a ... b - 1 of the part, by halves where their columns take much memory."""
        rows = slice(int(self._starts[a]), int(self._starts[b]))
        batch = self._batch(rows) if b - a == 1 or rows.stop - rows.start <= CHUNK_ROWS else None
        if batch is None and b - a > 1:
            middle = (a + b) // 2
            self._fit_rows(a, middle, fitted, records)
            self._fit_rows(middle, b, fitted, records)
            return
        wanted = a + np.flatnonzero(self._suited[a:b])
        if batch is None or len(wanted) == 0:
            return
        found = self._fit_batch(batch, rows, wanted)
        done = found["fitted"]
        fitted[wanted[done]] = True
        self._beta[wanted[done]] = found["beta"][done]
        first = int(np.searchsorted(self._ptr, rows.start))
        effects = found.pop("effects")
        self._effects[first : first + len(effects)] = effects
        found = {name: values[done] for name, values in found.items()}
        self._record(found, self._first + wanted[done], records)
        self._stage.advance(int(done.sum()))

    def _model(self, fitted: NDArray[np.bool_]) -> SharedModel:
        """What the segments fitted here predict with."""
        keys, local = self._design.keys, np.flatnonzero(fitted)
        counts = np.diff(self._cluster_starts)
        kept = np.repeat(fitted, counts)
        heads = self._ptr[:-1][kept]
        values = keys.values[heads if self._order is None else self._order[heads]]
        groups, labels = renumber(values)
        if keys.labels is not None:
            labels = np.asarray(keys.labels)[labels]
        starts = np.concatenate([[0], np.cumsum(counts[local])])
        segment = np.repeat(np.arange(len(local)), counts[local])
        order = np.lexsort((groups, segment))
        return SharedModel(
            spec=self._spec,
            states=self._states,
            segments=self._first + local,
            local=local,
            beta=self._beta[local],
            effects=self._effects[kept][order],
            groups=groups[order],
            group_starts=starts,
            labels=labels,
        )

    def _batch(self, rows: slice) -> Batch | None:
        """Columns of some rows; None where an expression has no value in one of them."""
        try:
            return self._design.batch(rows)
        except LmmError:
            return None

    def _fit_batch(self, batch: Batch, rows: slice, wanted: NDArray[np.intp]) -> dict[str, Any]:
        ends = np.column_stack([self._cluster_starts[wanted], self._cluster_starts[wanted + 1]])
        first, last = np.searchsorted(self._ptr, [rows.start, rows.stop])
        assert batch.y is not None
        found: dict[str, Any] = core.fit_segments(
            batch.X,
            batch.Z,
            batch.y,
            batch.weights,
            batch.offset,
            self._ptr[first : last + 1] - rows.start,
            None if self._order is None else self._order[rows] - rows.start,
            ends - first,
            compiled_terms(self._covariance),
            self._design.unit,
            bool(self._options.reml),
            min(int(self._options.max_iter), MOST_EVALUATIONS),
            self._threads,
        )
        return found

    def _record(self, found: dict[str, Any], segments: NDArray[np.intp], records: Records) -> None:
        design, covariance = self._design, self._covariance
        errors = np.sqrt(np.diagonal(found["cov_beta"], axis1=1, axis2=2))
        records.params.put(design.x_names, segments, found["beta"])
        records.bse.put(design.x_names, segments, errors)
        names = [*natural_names(design.terms), "var(Residual)"]
        records.theta.put(names, segments, found["theta"])
        records.llf[segments] = found["loglik"]
        records.evaluations[segments] = found["evaluations"]
        records.converged[segments] = True
        records.status[segments] = "converged"
        for k in np.flatnonzero((found["ranks"] < covariance.sizes).any(axis=1)):
            records.status[segments[k]] = converged_status(
                found["ranks"][k], found["D"][k], covariance, design.terms
            )


def _have_all_levels(codes: NDArray[Any], n_levels: int, sizes: Ints) -> NDArray[np.bool_]:
    """Whether all levels of a factor occur in each segment, (S,).

    Parameters
    ----------
    codes : ndarray (n,)
        In the order of the segments.
    sizes : ndarray (S,)
        Rows of each segment.
    """
    large = sizes >= n_levels  # the only ones that can have them all
    rows = np.repeat(large, sizes)
    segment = np.repeat(np.arange(int(large.sum())), sizes[large])
    pairs = segment * n_levels + codes[rows]
    counts = np.bincount(pairs, minlength=int(large.sum()) * n_levels)
    out = np.zeros(len(sizes), dtype=bool)
    out[large] = (counts.reshape(-1, n_levels) > 0).all(axis=1)
    return out
