"""Parquet files, and the scratch file of a stream, as batches of some of their columns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmmfast.data.tables import suggest
from lmmfast.errors import DataError
from lmmfast.streaming.place import Place
from lmmfast.streaming.types import common_type

#: Rows of the sample that the working basis is chosen by; a few more may join it.
SAMPLE_ROWS = 4000
#: Row groups from which on the sample has the first rows of some of them.
MANY_GROUPS = 8
MOST_GROUPS = 64
_PARQUET = (".parquet", ".pq")

Batches = Iterator[tuple[Any, Place]]


def find_files(source: Any) -> list[str]:
    """Files of a path, pattern, folder or list of them.

    Raises
    ------
    DataError
        There are none, one is there twice, or one is no Parquet file.
    """
    many = source if isinstance(source, list | tuple) else [source]
    found = [path for one in many for path in _files_of(os.fspath(one))]
    seen: dict[str, str] = {}
    for path in found:
        real = os.path.realpath(path)
        if real in seen:
            raise DataError(
                f"{path} is there twice (as {seen[real]} before): its rows would count twice"
            )
        seen[real] = path
    return found


def _files_of(path: str) -> list[str]:
    if os.path.isdir(path):
        found = sorted(str(one) for one in Path(path).rglob("*") if one.suffix in _PARQUET)
        if not found:
            raise DataError(f"the folder {path!r} has no file *.parquet")
        return found
    if os.path.isfile(path):
        found = [path]
    else:
        found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
        if not found:
            raise DataError(f"no such file: {path!r}")
    other = next((one for one in found if not one.endswith(_PARQUET)), None)
    if other is not None:
        raise DataError(
            f"{other!r} is a path, but of no Parquet file: read the file first, for instance by "
            "pandas.read_csv, or pass pyarrow.dataset.dataset(path, format='csv')"
        )
    return found


@dataclass(frozen=True)
class _File:
    """A file as it was when it was first opened."""

    path: str
    size: int
    changed: int
    groups: tuple[int, ...]  # rows of each row group


@dataclass
class ParquetFiles:
    """Parquet files, in order.

    Attributes
    ----------
    names : list of str
        Columns of the first file.
    """

    paths: list[str]
    batch_rows: int
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._files, self._schemas = [], []
        for path in self.paths:
            with _opened(path) as file:
                about = os.stat(path)
                meta = file.metadata
                rows = tuple(meta.row_group(k).num_rows for k in range(meta.num_row_groups))
                self._files.append(_File(path, about.st_size, about.st_mtime_ns, rows))
                self._schemas.append(file.schema_arrow)
        self.names = list(self._schemas[0].names)

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return sum(sum(file.groups) for file in self._files)

    def types(self, columns: Sequence[str]) -> dict[str, Any]:
        """Common types of columns.

        Raises
        ------
        DataError
            A column is missing in a file, or of types that have none in common.
        """
        found = {}
        for name in columns:
            for file, schema in zip(self._files, self._schemas, strict=True):
                if schema.get_field_index(name) < 0:
                    more = suggest(name, schema.names)
                    raise DataError(f"{file.path} has no column {name!r}, or several{more}")
            own = [
                (schema.field(name).type, file.path)
                for file, schema in zip(self._files, self._schemas, strict=True)
            ]
            found[name] = common_type(name, own)
        return found

    def batches(self, columns: Sequence[str]) -> Batches:
        """Read all rows in order.

        Raises
        ------
        DataError
            A file cannot be read, or has changed since it was opened first.
        """
        for known in self._files:
            _check_unchanged(known)
            with _opened(known.path) as file:
                for group in range(len(known.groups)):
                    yield from _group_batches(file, known, group, columns, self.batch_rows)
            _check_unchanged(known)

    def sample(self, columns: Sequence[str]) -> Batches:
        """Read about `SAMPLE_ROWS` rows, the same ones each time."""
        groups = [(file, k) for file in self._files for k in range(len(file.groups))]
        groups = [(file, k) for file, k in groups if file.groups[k]]
        if not groups:
            return
        places = np.linspace(0, len(groups) - 1, min(len(groups), MOST_GROUPS)).astype(int)
        most = -(-SAMPLE_ROWS // len(places))
        for place in places:
            known, group = groups[place]
            n = known.groups[group]
            first_only = len(groups) >= MANY_GROUPS
            step = 1 if first_only else max(1, -(-n // most))
            seen = 0
            with _opened(known.path) as file:
                rows = most if first_only else self.batch_rows
                for batch, where in _group_batches(file, known, group, columns, rows):
                    yield batch.take(pa.array(np.arange(-seen % step, len(batch), step))), where
                    seen += len(batch)
                    if first_only:
                        break


def _opened(path: str) -> Any:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {error}") from None


def _group_batches(
    file: Any, known: _File, group: int, columns: Sequence[str], batch_rows: int
) -> Batches:
    """Batches of one row group."""
    seen = 0
    place = Place(known.path, group)
    try:
        read = file.iter_batches(batch_rows, row_groups=[group], columns=list(columns))
        for batch in read:
            yield batch.select(list(columns)), place._replace(first_row=seen)
            seen += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{place} cannot be read: {error}") from None
    if seen != known.groups[group]:
        raise DataError(f"{place} has {seen} rows and not {known.groups[group]}: is it changing?")


def _check_unchanged(known: _File) -> None:
    try:
        about = os.stat(known.path)
        same = (about.st_size, about.st_mtime_ns) == (known.size, known.changed)
    except OSError:
        same = False
    if not same:
        raise DataError(f"{known.path} has changed while it was read: fit again when it is whole")


class ScratchFile:
    """The columns of a stream in a scratch file of Arrow's.

    Parameters
    ----------
    path : str
    schema : pyarrow.Schema
    sizes : sequence of int
        Rows of the batches in it.
    batch_rows : int
    """

    def __init__(self, path: str, schema: Any, sizes: Sequence[int], batch_rows: int) -> None:
        self._path, self._schema, self._sizes = path, schema, sizes
        self._batch_rows = batch_rows
        self.names = list(schema.names)

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        with pa.OSFile(self._path) as file, pa.ipc.open_file(file) as reader:
            yield reader

    @property
    def n_rows(self) -> int:
        """Rows of the stream."""
        return sum(self._sizes)

    def types(self, columns: Sequence[str]) -> dict[str, Any]:
        """Types of columns."""
        return {name: common_type(name, [(self._schema.field(name).type, "")]) for name in columns}

    def batches(self, columns: Sequence[str]) -> Batches:
        """Read all rows in order."""
        seen = 0
        with self._reader() as reader:
            for k in range(len(self._sizes)):
                batch = reader.get_batch(k).select(list(columns))
                for first in range(0, len(batch), self._batch_rows):
                    place = Place("the stream", 0, seen + first)
                    yield batch.slice(first, self._batch_rows), place
                seen += len(batch)

    def sample(self, columns: Sequence[str]) -> Batches:
        """Read rows spread evenly, the same ones whatever the batches were."""
        n = self.n_rows
        rows = np.arange(n) if n <= SAMPLE_ROWS else np.linspace(0, n - 1, SAMPLE_ROWS).astype(int)
        starts = np.cumsum([0, *self._sizes])
        with self._reader() as reader:
            for k, size in enumerate(self._sizes):
                own = rows[(rows >= starts[k]) & (rows < starts[k + 1])] - starts[k]
                if size and len(own):
                    batch = reader.get_batch(k).select(list(columns)).take(pa.array(own))
                    yield batch, Place("the stream", 0, int(starts[k]))
