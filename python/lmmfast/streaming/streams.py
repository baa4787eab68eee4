"""Streams of any library as Arrow's batches, and their copy in a scratch file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmmfast.data.tables import suggest
from lmmfast.errors import DataError
from lmmfast.streaming.files import ParquetFiles, ScratchFile, find_files
from lmmfast.streaming.scan import Scan
from lmmfast.streaming.types import as_type, common_type

#: Batches of a scratch file have this many rows, or more.
LARGE_ROWS = 1 << 16


def open_source(scan: Scan, scratch: Path) -> ParquetFiles | Stream:
    """Open what a fit is read from.

    Raises
    ------
    DataError
        It cannot be read.
    """
    source = scan.source
    if isinstance(source, str | list | tuple) or hasattr(source, "__fspath__"):
        return ParquetFiles(find_files(source), scan.batch_rows)
    return Stream(source, scratch, scan.batch_rows)


class Stream:
    """Data that come once: `spooled` copies some of their columns to a scratch file.

    Parameters
    ----------
    source : stream of any library
    scratch : Path
        Folder of the scratch file.
    """

    def __init__(self, source: Any, scratch: Path, batch_rows: int) -> None:
        self._scratch, self._batch_rows = scratch, batch_rows
        self.names, self._batches = _open(source, batch_rows)

    def spooled(
        self, columns: Sequence[str], told: Callable[[int], None] | None = None
    ) -> ScratchFile:
        """Copy columns to a scratch file, with the types of the first batch.

        Raises
        ------
        DataError
            A later batch lacks a column, or has it with another type.
        """
        path = str(self._scratch / "stream.arrow")
        with pa.OSFile(path, "wb") as file:
            writer, schema, sizes = None, None, []
            for batch in _large(self._typed(columns)):
                writer = writer or pa.ipc.new_file(file, batch.schema)
                try:
                    writer.write_batch(batch)
                except pa.ArrowInvalid as error:  # the dictionaries of Arrow's files are fixed
                    raise DataError(f"ordered categories of the stream change: {error}") from None
                schema = batch.schema
                sizes.append(len(batch))
                if told is not None:
                    told(sum(sizes))
            if writer is None:
                raise DataError("the stream has no batches")
            writer.close()
        return ScratchFile(path, schema, sizes, self._batch_rows)

    def _typed(self, columns: Sequence[str]) -> Iterator[Any]:
        schema = None
        for count, batch in enumerate(self._batches(columns)):
            typed = _with_columns(batch, columns, schema, count)
            schema = typed.schema
            yield typed


def _large(batches: Iterator[Any]) -> Iterator[Any]:
    """Put small batches together."""
    held: list[Any] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= LARGE_ROWS:
            yield from pa.Table.from_batches(held).combine_chunks().to_batches()
            held = []
    if held:
        table = pa.Table.from_batches(held).combine_chunks()
        yield from table.to_batches() or held[:1]


def _with_columns(batch: Any, columns: Sequence[str], schema: Any, count: int) -> Any:
    """The columns of a batch, with the types of a schema or plain ones."""
    arrays = []
    for name in columns:
        if batch.schema.get_field_index(name) < 0:
            more = suggest(name, batch.schema.names)
            raise DataError(f"batch {count} of the stream has no column {name!r}, or several{more}")
        column = batch.column(name)
        own = common_type(name, [(column.type, f"batch {count} of the stream")])
        wanted = own if schema is None else schema.field(name).type
        if pa.types.is_null(wanted):
            raise DataError(f"column {name!r} has no values in the first batch: give it its type")
        if schema is not None and not pa.types.is_null(own):
            first = (wanted, "the first batch of the stream")
            if common_type(name, [first, (own, f"batch {count}")]) != wanted:
                raise DataError(
                    f"column {name!r} is {wanted} in the first batch of the stream and {own} in "
                    f"batch {count}: give it one type"
                )
        arrays.append(as_type(column, wanted))
    return pa.record_batch(arrays, names=list(columns))


def _open(source: Any, rows: int) -> tuple[list[str], Callable[[Sequence[str]], Iterator[Any]]]:
    """Names of the columns of a stream, and a function that reads some of them."""
    if type(source).__module__.split(".")[0] == "polars":
        names = source.collect_schema().names()
        return names, lambda columns: _polars_batches(source.select(list(columns)), rows)
    if hasattr(source, "to_reader"):  # a scanner of pyarrow's
        source = source.to_reader()
    if hasattr(source, "to_batches") and hasattr(source, "schema"):  # a pyarrow Dataset
        return source.schema.names, lambda columns: iter(
            source.to_batches(columns=list(columns), batch_size=rows)
        )
    if hasattr(source, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(source)
        return reader.schema.names, lambda columns: iter(reader)
    tables = iter(source)
    first = next(tables, None)
    if first is None:
        raise DataError("the iterator has no tables")
    names = _as_batches(first)[0].schema.names
    return names, lambda columns: _iterated(itertools.chain([first], tables))


def _iterated(tables: Iterable[Any]) -> Iterator[Any]:
    for table in tables:
        yield from _as_batches(table)


def _as_batches(table: Any) -> list[Any]:
    """Batches of a table of any library."""
    if isinstance(table, pa.RecordBatch):
        return [table]
    if isinstance(table, pa.Table):
        own = table
    elif hasattr(table, "__arrow_c_stream__"):
        own = pa.table(table)
    elif isinstance(table, dict):
        own = pa.table(table)
    else:
        raise DataError(
            f"the iterator yields {type(table).__name__}, which is no table: yield record batches, "
            "tables, frames or dicts of arrays"
        )
    return own.to_batches() or [pa.record_batch([[]] * len(own.schema), schema=own.schema)]


def _polars_batches(lazy: Any, rows: int) -> Iterator[Any]:
    if hasattr(lazy, "collect_batches"):
        frames = lazy.collect_batches(chunk_size=rows, maintain_order=True)
    else:  # polars 1
        frames = lazy.collect().iter_slices(rows)
    for frame in frames:
        yield from frame.to_arrow().to_batches()
