"""Read CSV files without guessing: rows as long as the header, only empty fields missing."""

from __future__ import annotations

import csv
import gzip
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lmmfast.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
# What other programs write for a missing number.
_USUAL_MISSING = frozenset("NA N/A #N/A NaN nan NULL null None none . - ? missing".split())


def read_csv(
    path: Path, separator: str, text: Collection[str] = (), missing: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a file of separated values.

    Parameters
    ----------
    path : Path
        ``.gz`` files are unpacked.
    separator : str
    text : collection of str
        Columns that stay text, such as groups: ``01`` and ``1`` are two of them.
    missing : sequence of str
        Words for a missing value, beside the empty field.

    Raises
    ------
    DataError
        A row has more or fewer fields than the header, names occur twice, the separator or the
        decimal point is another one, or numbers stand beside a word that seems to mean "missing".
        The line is named.
    """
    import pandas as pd

    header = _check_fields(path, separator)
    unread = [name for name in header if name in text]
    data = pd.read_csv(
        path,
        sep=separator,
        low_memory=False,  # in one piece: a column has one type, even if few of its ids are text
        dtype=dict.fromkeys(unread, str),
        keep_default_na=False,
        na_values=["", *missing],
        skip_blank_lines=True,
        index_col=False,
    )
    for name in data.columns.difference(unread):
        if not pd.api.types.is_numeric_dtype(data[name]):
            _check_numbers(path, separator, name, data[name])
    return data


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file


def _check_fields(path: Path, separator: str) -> list[str]:
    """Compare the fields of each row with those of the header, and return the names."""
    with _opened(path) as file:
        rows = csv.reader(file, delimiter=separator)
        try:
            header = next((row for row in rows if row), None)
            if header is None:
                raise DataError(f"{path}: cannot be read: the file is empty")
            _check_header(path, header, separator)
            for row in rows:
                if row and len(row) != len(header):
                    _raise_ragged(path, rows.line_num, row, header, separator)
        except csv.Error as error:
            raise DataError(f"{path}: cannot be read: line {rows.line_num}: {error}") from None
    return header


def _line_of(path: Path, separator: str, row: int) -> int:
    """Line of a row, counted from 0 after the header: quoted fields may go over several lines."""
    with _opened(path) as file:
        rows = csv.reader(file, delimiter=separator)
        next(itertools.islice((fields for fields in rows if fields), row + 1, None), None)
        return rows.line_num


def _raise_ragged(path: Path, line: int, row: list[str], header: list[str], separator: str) -> None:
    commas = separator == "," and len(row) > len(header)
    hint = "; decimal commas, or a comma within text that is not quoted?" if commas else ""
    raise DataError(
        f"{path}: line {line} has {len(row)} fields, and the header has {len(header)}{hint}"
    )


def _check_header(path: Path, names: list[str], separator: str) -> None:
    """Raise a DataError if names occur twice or the separator is another one."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: several columns are named {twice[0]!r}: rename or remove them")
    others = [mark for mark in (";", "\t", ",") if mark != separator and mark in names[0]]
    if len(names) == 1 and others:
        raise DataError(
            f"{path}: the separator seems to be {others[0]!r}, not {separator!r}: .csv files must "
            "have commas, .tsv files tabs"
        )


def _check_numbers(path: Path, separator: str, name: str, values: pd.Series[str]) -> None:
    """Refuse a text column that was meant as numbers."""
    import pandas as pd

    present = values.dropna().astype(str)
    odd = present[pd.to_numeric(present, errors="coerce").isna()]
    if len(odd) == 0:
        return
    first = odd.iloc[0]
    if odd.map(lambda value: _DECIMAL_COMMA.fullmatch(value) is not None).all():
        problem = f"{first!r} is a number with a decimal comma: write decimal points"
    elif len(odd) < len(present) and odd.isin(_USUAL_MISSING).all():
        problem = (
            f"{first!r} among numbers: pass --na {first!r} if it means a missing value, else give "
            "this category another name"
        )
    else:
        return
    line = _line_of(path, separator, int(odd.index[0]))
    raise DataError(f"{path}: line {line}, column {name!r}: {problem}")
