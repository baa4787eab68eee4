"""Several data files, or the standard input, as one table."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmmfast.data.table_files import read_table
from lmmfast.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

#: Stands for the standard input, in CSV.
STANDARD_INPUT = Path("-")


def read_tables(
    paths: Sequence[Path], text: Collection[str] = (), missing: Sequence[str] = ()
) -> pd.DataFrame:
    """Read files of the same columns, one below the other.

    Parameters
    ----------
    paths : sequence of Path
        ``-`` is CSV on the standard input.
    text, missing
        See `read_table`.

    Raises
    ------
    DataError
        A file cannot be read, is listed twice, or lacks a column of another one; a column is
        numbers in one file and not in another.
    """
    import pandas as pd

    known = [path if path == STANDARD_INPUT else path.resolve() for path in paths]
    for path in paths:
        if known.count(path if path == STANDARD_INPUT else path.resolve()) > 1:
            raise DataError(f"{path}: is listed twice, and its rows would count twice")
    tables = [_read(path, text, missing) for path in paths]
    if len(tables) == 1:
        return tables[0]
    for path, table in zip(paths[1:], tables[1:], strict=True):
        _check_same(paths[0], tables[0], path, table)
    return pd.concat(tables, ignore_index=True)


def _read(path: Path, text: Collection[str], missing: Sequence[str]) -> pd.DataFrame:
    if path != STANDARD_INPUT:
        return read_table(path, text, missing)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "input.csv"
        copy.write_bytes(sys.stdin.buffer.read())
        try:
            return read_table(copy, text, missing)
        except DataError as error:
            raise DataError(str(error).replace(str(copy), "standard input")) from None


def _check_same(first: Path, one: pd.DataFrame, path: Path, other: pd.DataFrame) -> None:
    from pandas.api.types import is_numeric_dtype

    for has, lacks, table in ((first, path, one), (path, first, other)):
        absent = [name for name in table if name not in (other if table is one else one)]
        if absent:
            raise DataError(f"{lacks}: has no column {absent[0]!r}, which {has} has")
    for name in one:
        if one[name].isna().all() or other[name].isna().all():
            continue
        if is_numeric_dtype(one[name]) != is_numeric_dtype(other[name]):
            kinds = [str(table[name].dtype) for table in (one, other)]
            raise DataError(
                f"{path}: column {name!r} is {kinds[1]}, and {kinds[0]} in {first}: convert one"
            )
