"""Tables in files: their endings say what they are."""

from __future__ import annotations

import gzip
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmmfast.data.csv_files import read_csv
from lmmfast.data.whole_files import replacing
from lmmfast.errors import DataError, LmmError

if TYPE_CHECKING:
    import pandas as pd

_CSV = {".csv": ",", ".tsv": "\t"}
_COMPRESSED = ".gz"
_PARQUET = (".parquet", ".pq")


def read_table(path: Path, text: Collection[str] = (), missing: Sequence[str] = ()) -> pd.DataFrame:
    """Read a data file; its ending says what it is.

    Parameters
    ----------
    path : Path
    text : collection of str
        Columns of a CSV file that stay text.
    missing : sequence of str
        Words for a missing value in a CSV file, beside the empty field.

    Raises
    ------
    DataError
        There is no such file, its ending is unknown, it cannot be read, or pyarrow is missing.
    """
    kind, _ = _kind(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    import pandas as pd

    try:
        if kind in _PARQUET:
            return pd.read_parquet(path)
        return read_csv(path, _CSV[kind], text, missing)
    except ImportError:
        raise _no_pyarrow(path) from None
    except LmmError:
        raise
    except (ValueError, EOFError) as error:  # pandas' and pyarrow's parser errors, encodings
        raise DataError(f"{path}: cannot be read: {error}") from None


def check_ending(path: Path) -> None:
    """Raise a DataError if the ending of a file is unknown, before work is done for it."""
    _kind(path)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a data file; a file of this name is replaced when the new one is whole.

    Raises
    ------
    DataError
        The ending is unknown, or pyarrow is missing.
    OSError
        As the operating system says.
    """
    kind, packed = _kind(path)
    try:
        with replacing(path) as file:
            if kind in _PARQUET:
                table.to_parquet(file, index=False)
            elif packed:
                with gzip.open(file, "wt", encoding="utf-8", newline="") as unpacked:
                    table.to_csv(unpacked, sep=_CSV[kind], index=False)
            else:
                plain = io.TextIOWrapper(file, encoding="utf-8", newline="")
                table.to_csv(plain, sep=_CSV[kind], index=False)
                plain.detach()  # the file is closed when it is on disk
    except ImportError:
        raise _no_pyarrow(path) from None


def _kind(path: Path) -> tuple[str, bool]:
    """Ending that says what a file is, and whether it is compressed."""
    endings = [ending.lower() for ending in path.suffixes]
    packed = bool(endings) and endings[-1] == _COMPRESSED
    kind = endings[-2 if packed and len(endings) > 1 else -1] if endings else ""
    if kind not in _CSV and (packed or kind not in _PARQUET):
        raise DataError(f"{path}: cannot tell its format; give a .csv, .tsv or .parquet file")
    return kind, packed


def _no_pyarrow(path: Path) -> DataError:
    return DataError(
        f"{path}: parquet files need pyarrow, which is not installed: pip install pyarrow"
    )
