"""What a fit is to be read from in pieces, and how; no file is opened here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmmfast.errors import DataError, UnsupportedModelError

#: What the pieces of a fit may take of memory where nothing is said.
MEMORY = 2 << 30
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_IN_MEMORY = ("pandas", "narwhals", "modin", "cudf")


@dataclass(frozen=True)
class Scan:
    """A source and how it is read; made by `scan`."""

    source: Any
    memory: int = MEMORY
    sorted: bool | None = None
    scratch: str | None = None
    columns: tuple[str, ...] | None = None
    learn: str = "exact"
    batch_rows: int = 1 << 17
    progress: Callable[[dict[str, Any]], None] | None = None


def scan(
    source: Any,
    *,
    memory: int | str | None = None,
    sorted: bool | None = None,
    scratch: str | os.PathLike[str] | None = None,
    columns: Sequence[str] | None = None,
    learn: str = "exact",
    batch_rows: int = 1 << 17,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Scan:
    """Say how data that do not fit into memory are to be read by `lmm`.

    Parameters
    ----------
    source : path, list of paths, or a stream
        Parquet files: a path, a pattern (``"data/*.parquet"``), a folder or a list of them, read in
        this order (those of a pattern or folder by name). Or a polars LazyFrame, a pyarrow Dataset
        or RecordBatchReader, a DuckDB relation, an iterator of tables, anything with
        ``__arrow_c_stream__``: the columns of the model are copied to scratch files once.
    memory : int or str, optional
        Bytes, such as ``"512MB"``, that pieces of the data and packed clusters may take beside the
        imports. What is more goes to scratch files. Default: 2 GB.
    sorted : bool, optional
        Whether the rows of each group stand together. Default: looked at; where groups do not
        ascend, rows are distributed over scratch files by a hash of their group.
    scratch : path, optional
        Folder of scratch files, which are removed. Default: the system's for temporary files.
    columns : sequence of str, optional
        The only columns that there are, for formulas with ``.``.
    learn : {"exact", "sample"}
        From what transforms with state (``scale(x)``, ``bs(x, df=4)``) learn it: all rows, whose
        columns in such transforms must fit into memory, or a sample of about 4,000.
    batch_rows : int
        Rows read at a time; nothing but time and memory depends on it.
    progress : callable, optional
        Called after each batch with a dict: ``stage`` ("copy" of a stream, "learn", "distribute",
        "pack"), ``rows`` done, and ``of`` how many (None: not known). What it raises ends the fit.

    Returns
    -------
    Scan

    Raises
    ------
    DataError
        An argument that makes no sense.

    Examples
    --------
    >>> import lmmfast as lf
    >>> source = lf.scan("visits/*.parquet", memory="512MB", sorted=True)
    >>> source.memory
    536870912
    """
    if sorted not in (None, True, False):
        raise DataError(f"sorted={sorted!r}: choose True, False or None")
    if learn not in ("exact", "sample"):
        raise DataError(f"learn={learn!r}: choose 'exact' or 'sample'")
    if not isinstance(batch_rows, int | np.integer) or batch_rows < 1:
        raise DataError(f"batch_rows={batch_rows!r}: give a positive whole number")
    if scratch is not None and not Path(scratch).is_dir():
        raise DataError(f"scratch={os.fspath(scratch)!r} is no folder")
    if progress is not None and not callable(progress):
        raise DataError(f"progress={progress!r} must be a function of a dict")
    if isinstance(source, Scan):
        source = source.source
    return Scan(
        source,
        MEMORY if memory is None else _bytes(memory),
        sorted,
        None if scratch is None else os.fspath(scratch),
        None if columns is None else tuple(columns),
        learn,
        int(batch_rows),
        progress,
    )


def _bytes(memory: int | str) -> int:
    """Read ``512_000_000``, ``"512MB"``, ``"2 GiB"``: units are powers of 1024."""
    found = None
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?)i?B?\s*", memory, re.IGNORECASE)
    try:
        size = float(found[1]) * _UNITS[found[2].upper()] if found else float(memory)
    except (TypeError, ValueError):
        raise DataError(f"memory={memory!r}: give bytes, or a text such as '512MB'") from None
    if not size >= 1 << 20:
        raise DataError(f"memory={memory!r}: at least 1 MB")
    return int(min(size, 1 << 60))


def is_stream(data: Any) -> bool:
    """Whether data are read in pieces, and no table in memory."""
    if isinstance(data, str | os.PathLike | Scan):
        return True
    if isinstance(data, list | tuple):
        return bool(data) and all(isinstance(one, str | os.PathLike) for one in data)
    if isinstance(data, Mapping | np.ndarray):
        return False
    if isinstance(data, Iterator):
        return True
    library, name = type(data).__module__.split(".")[0], type(data).__name__
    if library == "polars":
        return name == "LazyFrame"
    if library == "pyarrow":
        return name not in ("Table", "RecordBatch") and hasattr(
            data, "to_reader" if name == "Scanner" else "schema"
        )
    return library not in _IN_MEMORY and hasattr(data, "__arrow_c_stream__")


def check_streamed(residual: Any, subset: Any, weights: Any, offset: Any, engine: str) -> None:
    """Refuse what takes all rows at once.

    Raises
    ------
    UnsupportedModelError, DataError
        Each says what to do.
    """
    if residual is not None and not residual.is_independent:
        raise UnsupportedModelError(
            f"residual={residual} needs the rows of a fit, which are read in pieces here: read the "
            "columns of the model into a table and pass that"
        )
    if engine not in ("auto", "moments"):
        raise UnsupportedModelError(f"engine={engine!r} is not for data that are read in pieces")
    if subset is not None:
        raise DataError(
            "subset= is not for data that are read in pieces: filter the source, such as "
            "pyarrow.dataset.dataset(path).filter(...) or polars.scan_parquet(path).filter(...)"
        )
    for role, given in (("weights", weights), ("offset", offset)):
        if given is not None and not isinstance(given, str):
            raise DataError(f"{role}= must name a column of data that are read in pieces")
