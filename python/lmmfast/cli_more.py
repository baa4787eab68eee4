"""Commands that go on with saved fits: ``lmmfast append``, ``lmmfast compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmfast.cli_saved import text_columns
from lmmfast.data.many_files import read_tables
from lmmfast.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult


def add_append(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``lmmfast append``."""
    parser.description = (
        "Fit the rows of a saved fit and new ones together, without the rows of the saved one, "
        "which 'lmmfast fit --save FILE --clusters' has written."
    )
    parser.add_argument("model", type=Path, help="file of the fit; it is replaced")
    parser.add_argument("data", type=Path, nargs="+", help="new rows, as for 'lmmfast fit'")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the new fit there, and leave MODEL alone"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--missing", choices=("drop", "raise"), default="drop", help="as for 'lmmfast fit'"
    )
    parser.add_argument(
        "--na", action="append", default=[], metavar="WORD", help="as for 'lmmfast fit'"
    )
    parser.add_argument("--trust", action="store_true", help="as for 'lmmfast predict'")


def append(arguments: argparse.Namespace) -> LMMResult:
    """Append the rows of files to a saved fit, and save the new one.

    A fit that has not converged is saved nowhere but where ``--save`` says.

    Raises
    ------
    DataError
        The model file cannot be used, or holds no packed clusters; the rows cannot be used.
    """
    fit = _load(arguments.model, arguments.trust)
    data = read_tables(arguments.data, text_columns(fit, arguments.model), arguments.na)
    new = fit.append(data, missing=arguments.missing, in_place=True)
    if arguments.save is not None or new.converged:
        new.save(arguments.save or arguments.model, clusters=True)
    return new


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``lmmfast compare``."""
    parser.description = (
        "Compare saved fits to the same rows: AIC, BIC and likelihood-ratio tests of each against "
        "the one before it."
    )
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="files of fits")
    parser.add_argument(
        "--test",
        choices=("chisq", "mixture"),
        default="chisq",
        help="where p values are from: 'mixture' where a variance may be zero",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--trust", action="store_true", help="as for 'lmmfast predict'")


def compare(arguments: argparse.Namespace) -> pd.DataFrame:
    """Compare saved fits; a row each, by the names of their files.

    Raises
    ------
    DataError
        A file cannot be used or is named twice, or the fits are not to be compared.
    """
    from lmmfast.inference.comparison import compare as compare_fits

    names = [str(path) for path in arguments.models]
    if len(set(names)) < len(names):
        raise DataError("a model file is named twice")
    fits: dict[str, Any] = {str(path): _load(path, arguments.trust) for path in arguments.models}
    return compare_fits(fits, test=arguments.test)


def _load(path: Path, trust: bool) -> LMMResult:
    from lmmfast.persist.files import load
    from lmmfast.result import LMMResult

    fit = load(path, trust=trust)
    if not isinstance(fit, LMMResult):
        raise DataError(f"{path}: holds many fits, where one is needed")
    return fit


def effects_table(fit: LMMResult) -> pd.DataFrame:
    """Random effects as one long table: factor, group, effect, value."""
    import pandas as pd

    found = fit.random_effects
    by_factor = found if isinstance(found, dict) else {fit.group_name: found}
    parts = []
    for name, frame in by_factor.items():
        long = frame.rename_axis("group").reset_index()
        long = long.melt("group", var_name="effect", value_name="value")
        long.insert(0, "factor", name)
        long["group"] = long["group"].astype(str) if len(by_factor) > 1 else long["group"]
        parts.append(long)
    return pd.concat(parts, ignore_index=True)
