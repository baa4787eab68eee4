"""Scattered groups: rows are distributed over scratch files by a hash of their group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.streaming.cuts import Part
from lmmfast.streaming.files import Batches
from lmmfast.streaming.place import Place

MOST_PARTITIONS = 512
#: Bytes of a partition that is packed quickly, because much of it is in the cache.
FAST_BYTES = 32 << 20
#: Rows that are distributed at a time, so that pieces in the files are not too small.
CHUNK_ROWS = 1 << 20
#: A partition takes about this many times its bytes while it is packed.
ROOM = 4


def count_partitions(n_bytes: int, memory: int) -> int:
    """Partitions of rows of so many bytes, a power of two."""
    wanted = max(1.0, n_bytes / min(FAST_BYTES, memory / ROOM))
    return int(min(MOST_PARTITIONS, 2 ** np.ceil(np.log2(wanted))))


class Shuffled:
    """Rows in scratch files, those of a group in one, in the order in which they came.

    Parameters
    ----------
    batches : iterator of (RecordBatch, Place)
    groups : sequence of str
    n : int
        Number of files.
    scratch : Path
        Folder for them.
    """

    def __init__(self, batches: Batches, groups: Sequence[str], n: int, scratch: Path) -> None:
        self._groups, self._n = groups, n
        self._paths = [str(scratch / f"rows-{k}.arrow") for k in range(n)]
        self._files: list[Any] = []
        self._writers: list[Any] = []
        try:
            held, rows = [], 0
            for batch, _ in batches:
                held.append(batch)
                rows += len(batch)
                if rows >= CHUNK_ROWS:
                    self._write(held)
                    held, rows = [], 0
            if held:
                self._write(held)
        finally:
            for writer in self._writers:
                writer.close()
            for file in self._files:
                file.close()

    def _write(self, held: list[Any]) -> None:
        (batch,) = pa.Table.from_batches(held).combine_chunks().to_batches()
        if not self._writers:
            self._files = [pa.OSFile(path, "wb") for path in self._paths]
            self._writers = [pa.ipc.new_stream(file, batch.schema) for file in self._files]
        which = (hashed([batch.column(name) for name in self._groups]) % np.uint64(self._n)).astype(
            np.int64
        )
        ends, order = core.group_rows(which, 0, self._n, 1)
        rows = batch if order is None else batch.take(pa.array(order))
        for k in np.flatnonzero(np.diff(ends)):
            self._writers[k].write_batch(rows.slice(int(ends[k]), int(ends[k + 1] - ends[k])))

    def __iter__(self) -> Iterator[Part]:
        for k, path in enumerate(self._paths if self._writers else []):
            with pa.OSFile(path) as file, pa.ipc.open_stream(file) as reader:
                table = reader.read_all()
            if len(table):
                yield Part(table, Place("the rows distributed by group", k))


def hashed(keys: Sequence[Any]) -> NDArray[np.uint64]:
    """Hash of the groups of rows, the same in every process."""
    total = np.zeros(len(keys[0]), dtype=np.uint64)
    for key in keys:
        total = _mixed(total + _numbers(key))
    return total


def _numbers(key: Any) -> NDArray[np.uint64]:
    """A number for each value: its bits, or a hash of its text."""
    import pandas as pd

    kind = key.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return key.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    if pa.types.is_floating(kind):
        return (key.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0).view(np.uint64)
    if pa.types.is_temporal(kind):
        return (
            pc.cast(key, pa.int64() if kind.bit_width == 64 else pa.int32())
            .to_numpy(zero_copy_only=False)
            .astype(np.int64)
            .view(np.uint64)
        )
    coded = key if pa.types.is_dictionary(kind) else key.dictionary_encode()
    of_texts = pd.util.hash_array(np.asarray(coded.dictionary.to_pylist(), dtype=object))
    return of_texts[coded.indices.to_numpy(zero_copy_only=False)]


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64: Steele, Lea and Flood (2014), OOPSLA."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
