"""Predictions of random effects as a Parquet file, written in pieces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.whole_files import replacing
from lmmfast.errors import UnsupportedModelError
from lmmfast.streaming.store import SpilledEngine

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Groups of a row group.
PIECE_ROWS = 1 << 16


def write_effects(fit: LMMResult, path: str | os.PathLike[str]) -> None:
    """Write labels and random effects; see `LMMResult.random_effects_to`."""
    if isinstance(fit.ngroups, dict):
        raise UnsupportedModelError(
            "effects of several grouping factors are written one by one: "
            "fit.random_effects[name].to_parquet(path)"
        )
    target, writer = Path(path), None
    with replacing(target) as file:
        for labels, b in _pieces(fit):
            names = [fit.group_name, *fit.z_names]
            table = pa.table([pa.array(labels), *(pa.array(column) for column in b.T)], names)
            writer = writer or pq.ParquetWriter(file, table.schema, write_page_checksum=True)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _pieces(fit: LMMResult) -> Iterator[tuple[NDArray[Any], Array]]:
    """Labels and effects of some groups at a time."""
    engine, clusters = fit._engine, fit._clusters
    if isinstance(engine, SpilledEngine) and clusters is not None:
        root = fit._basis.y_scale * fit._basis.z_map() @ fit._Lambda
        first = 0
        for b in engine.effects_pieces(fit._Lambda, root, fit._c):
            keys = clusters.keys[first : first + len(b)]
            yield keys if clusters.names is None else np.asarray(clusters.names)[keys], b
            first += len(b)
        return
    labels, b = np.asarray(fit._group_labels), fit._effects
    for first in range(0, len(b), PIECE_ROWS):
        rows = slice(first, first + PIECE_ROWS)
        yield labels[rows], b[rows]
