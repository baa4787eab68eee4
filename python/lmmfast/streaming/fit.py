"""A fit of data that are read in pieces: look, pack in one pass, search."""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from lmmfast._threads import n_threads
from lmmfast.data.batch import Batch
from lmmfast.data.frame import Rows
from lmmfast.data.tables import Table
from lmmfast.design.design import warn_of_missing_rows
from lmmfast.design.from_formula import FormulaDesign, read_terms, write_out_dot
from lmmfast.errors import DataError, EmptyEffectsError, UnsupportedModelError
from lmmfast.fitting.append import RowlessDesign
from lmmfast.fitting.identify import check_clusters
from lmmfast.fitting.options import Options
from lmmfast.fitting.pipeline import fit_prepared, warn_of_empty_effects
from lmmfast.fitting.prepare import Prepared, choose_covariance, prepared, report_dropped
from lmmfast.fitting.settle import settle
from lmmfast.formula.factors import LEARNED, WHOLE
from lmmfast.formula.parse import ParsedFormula, parse_formula
from lmmfast.limits import check_fixed_effects
from lmmfast.packing.basis import Basis
from lmmfast.result import LMMResult
from lmmfast.streaming.cuts import ScatteredError, cut
from lmmfast.streaming.look import Look, look
from lmmfast.streaming.pack import (
    MisledByRowError,
    Packed,
    design_of,
    field_count,
    pack,
)
from lmmfast.streaming.rows import Cleaner, sized
from lmmfast.streaming.scan import Scan
from lmmfast.streaming.shuffle import Shuffled, count_partitions
from lmmfast.streaming.store import BlockStore, SpilledEngine
from lmmfast.streaming.streams import Stream, open_source
from lmmfast.streaming.types import is_factor, width

logger = logging.getLogger("lmmfast")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Model:
    """What a formula asks of a source.

    Attributes
    ----------
    formula : ParsedFormula
        With ``.`` written out.
    columns : list of str
        All that are read.
    learning : list of str
        Those that transforms learn from.
    coded : list of str
        Those whose levels may be needed.
    """

    formula: ParsedFormula
    columns: list[str]
    learning: list[str]
    coded: list[str]


def fit_stream(
    formula: str,
    source: Scan,
    options: Options,
    *,
    weights: str | None,
    offset: str | None,
    missing: str,
    D: Any,
    groups: Any,
    context: Any,
) -> LMMResult:
    """Fit a model to a source; see `lmmfast.lmm` and `lmmfast.scan`.

    Raises
    ------
    UnsupportedModelError
        A model that needs all rows at once.
    DataError
        Files that cannot be read or do not fit together; scratch files have no room.
    """
    parsed = parse_formula(formula, groups, False, context)
    with tempfile.TemporaryDirectory(prefix="lmmfast-", dir=source.scratch) as folder:
        try:
            run = _Run(parsed, source, options, Path(folder), (weights, offset), missing, D)
            return run.fit()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            free = shutil.disk_usage(folder).free >> 20
            raise DataError(
                f"no room for scratch files in {Path(folder).parent} ({free:,} MB free): give a "
                "larger folder by lmmfast.scan(..., scratch=)"
            ) from None


def read_model(parsed: ParsedFormula, names: Sequence[str], extra: Sequence[str]) -> Model:
    """Find the columns of a model among those of a source.

    Raises
    ------
    UnsupportedModelError
        Several grouping factors; expressions that need all rows at once.
    FormulaError
        Names that the source does not have.
    """
    if len(parsed.factors) > 1:
        raise UnsupportedModelError(
            f"several grouping factors ({', '.join(parsed.factor_names)}) are not streamed: read "
            "the columns of the model into a table and pass that"
        )
    table = Table(tuple(names), 0, lambda name: None)
    for name in extra:
        if name not in names:
            raise DataError(f"{name!r} (weights or offset) is not a column of the data")
    parsed = write_out_dot(parsed, table, *extra)
    _, uses = read_terms(parsed, table)
    whole = next((expr for expr, use in uses.items() if use.scope == WHOLE), None)
    if whole is not None:
        raise UnsupportedModelError(
            f"{whole!r} is not known to go row by row, and the rows are read in pieces: use "
            "center(), scale() or another transform that remembers, or compute the column first"
        )
    learning = {c for use in uses.values() if use.scope == LEARNED for c in use.columns}
    columns = {c for use in uses.values() for c in use.columns}
    return Model(
        parsed,
        list(dict.fromkeys([*sorted(columns), *parsed.group_columns, *extra])),
        sorted(learning),
        sorted(columns),
    )


class _Run:
    """One fit: source, what was learnt of it, and its passes."""

    def __init__(
        self,
        parsed: ParsedFormula,
        scan: Scan,
        options: Options,
        folder: Path,
        extra: tuple[str | None, str | None],
        missing: str,
        D: Any,
    ) -> None:
        self._scan, self._options, self._folder = scan, options, folder
        self._threads = n_threads(options.n_jobs)
        source: Any = open_source(scan, folder)
        names = source.names if scan.columns is None else scan.columns
        self._model = read_model(parsed, names, [name for name in extra if name is not None])
        self._source = (
            source.spooled(self._model.columns, self._tell("copy"))
            if isinstance(source, Stream)
            else source
        )
        types = self._source.types(self._model.columns)
        self._cleaner = Cleaner(_keys_plain(types, self._model), missing, extra[0])
        seen = self._look(types)
        try:
            design = FormulaDesign(
                self._model.formula,
                seen.table(),
                weights=extra[0],
                offset=extra[1],
                D=D,
                everything=seen.everything,
            )
            design_of(design.spec, seen.sample).batch(slice(None))
        except DataError as error:
            raise DataError(f"{error} [found in a sample, whose rows are counted]") from None
        self._design, self._sample = design, seen.sample
        check_fixed_effects(self._source.n_rows, design.x_names, self._threads)
        self._shuffled: Shuffled | None = None

    def _look(self, types: dict[str, Any]) -> Look:
        factors = [name for name in self._model.coded if is_factor(types[name])]
        learning = self._model.learning if self._scan.learn == "exact" else []
        if set(learning) <= set(factors):
            learning = []  # C(column) of a factor has nothing to learn but its levels
        cleaner = replace(self._cleaner, told=self._tell("learn", self._source.n_rows))
        return look(self._source, cleaner, factors, learning, self._scan.memory)

    def fit(self) -> LMMResult:
        """Pack and search; leave out columns of Z that are zero in all rows."""
        while True:
            try:
                return self._fit()
            except EmptyEffectsError as empty:
                if self._options.rank_deficient == "raise":
                    raise
                self._design = self._design.without_effects(empty.columns)
                warn_of_empty_effects(self._design, stacklevel=5)

    def _fit(self) -> LMMResult:
        covariance = choose_covariance(self._design)
        held: Any = _Sample(self._design, self._sample)
        found: Packed = settle(held, lambda basis: self._packed(held, basis), True)[0]
        self._sample = held.table
        cleaner = self._cleaner
        logger.info("packed %d rows of %d groups", cleaner.n_obs, found.clusters.m)
        n_dropped = cleaner.n_rows - cleaner.n_obs
        warn_of_missing_rows(n_dropped, cleaner.n_rows, cleaner.missing_counts, stacklevel=5)
        rowless = _Streamed(
            spec=self._design.spec,
            terms=self._design.terms,
            x_names=self._design.x_names,
            y_name=self._design.y_name,
            group_name=self._design.group_name,
            n_obs=found.packed.n_obs,
            n_dropped=n_dropped,
            missing_counts=dict(cleaner.missing_counts),
            unit=self._design.unit,
            dropped_effects=self._design.dropped_effects,
            empty=found.empty,
        )
        check_clusters(rowless, found.clusters)
        ready = self._prepared(found)
        report_dropped(rowless, ready.keep, self._options)
        return fit_prepared(rowless, found.clusters, covariance, ready, self._options)

    def _prepared(self, found: Packed) -> Prepared:
        if found.folder is None:
            return prepared(found.packed, self._threads)
        engine = SpilledEngine(found.packed, self._threads, found.folder)
        return replace(prepared(found.packed, self._threads), engine=engine)

    def _packed(self, held: _Sample, basis: Basis) -> tuple[Packed, Any, Basis]:
        """One pass; another one over distributed rows if groups turn out to be scattered."""
        try:
            found = self._pass(basis)
        except ScatteredError:
            self._shuffle()
            found = self._pass(basis)
        except MisledByRowError as misled:
            held.grow(misled.row)
            raise
        return found, found.packed.gram, basis

    def _pass(self, basis: Basis) -> Packed:
        fields = field_count(len(basis.z_scale), len(basis.x_scale) + 1)
        store = BlockStore(fields, self._scan.memory // 2, self._scan.scratch)
        try:
            return pack(self._parts(), self._design.spec, basis, store, self._threads)
        except BaseException:
            store.close()
            raise

    def _parts(self) -> Iterator[Any]:
        """Tables of whole groups."""
        if self._shuffled is None and self._scan.sorted is False:
            self._shuffle()
        if self._shuffled is not None:
            return self._counted(self._shuffled)
        trusted = self._scan.sorted is True
        return cut(self._cleaned("pack"), self._model.formula.group_columns, trusted)

    def _tell(self, stage: str, of: int | None = None) -> Callable[[int], None] | None:
        """Function that reports rows done of a stage."""
        progress = self._scan.progress
        if progress is None:
            return None
        return lambda rows: progress({"stage": stage, "rows": rows, "of": of})

    def _counted(self, parts: Iterable[Any]) -> Iterator[Any]:
        tell, rows = self._tell("pack", self._cleaner.n_obs), 0
        for part in parts:
            yield part
            rows += len(part.table)
            if tell is not None:
                tell(rows)

    def _cleaned(self, stage: str) -> Iterator[Any]:
        told = self._tell(stage, self._source.n_rows)
        new = replace(self._cleaner, told=told, n_rows=0, n_obs=0, missing_counts={})
        cleaner = self._cleaner = new
        return cleaner.clean(self._source.batches(self._model.columns))

    def _shuffle(self) -> None:
        row = sized(self._cleaner.types, self._model.columns, width)
        n = count_partitions(row * self._source.n_rows, self._scan.memory)
        logger.info("distributing %d rows over %d scratch files", self._source.n_rows, n)
        groups = self._model.formula.group_columns
        self._shuffled = Shuffled(self._cleaned("distribute"), groups, n, self._folder)


def _keys_plain(types: dict[str, Any], model: Model) -> dict[str, Any]:
    """Groups need no ordered categories: their values as they are."""
    plain = dict(types)
    for name in model.formula.group_columns:
        kind = types[name]
        if name not in model.coded and hasattr(kind, "value_type"):
            plain[name] = kind.value_type
    return plain


@dataclass(frozen=True)
class _Streamed(RowlessDesign):
    """A model whose rows were read in pieces and are gone."""

    empty: tuple[int, ...] = ()

    def _refuse(self) -> NoReturn:
        raise DataError(
            "this needs the rows of the fit, which were read in pieces and are not held: use "
            "predict(data), or fit a table"
        )

    def empty_effects(self) -> list[int]:
        """Columns of Z that are zero in all rows, where every term has others too."""
        empty, first = set(self.empty), 0
        for term in self.terms:
            own = range(first, first + len(term.names))
            empty = empty if not empty.issuperset(own) else set()
            first = own.stop
        return sorted(empty)


class _Sample:
    """The sample that the basis is chosen by, as a design; rows that it should have had join it."""

    def __init__(self, design: FormulaDesign, table: Any) -> None:
        self._spec, self.table = design.spec, table
        self.terms, self.unit, self.x_names = design.terms, design.unit, design.x_names
        self._design = design_of(self._spec, table)

    @property
    def n_obs(self) -> int:
        """Rows of the sample."""
        return self._design.n_obs

    def batch(self, rows: Rows) -> Batch:
        """Columns for some rows of the sample."""
        return self._design.batch(rows)

    def grow(self, row: Any) -> None:
        """Add a row."""
        self.table = pa.concat_tables([self.table, row]).combine_chunks()
        self._design = design_of(self._spec, self.table)
