"""Commands on saved fits: ``lmmfast predict``, ``lmmfast info m.lmm``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmfast.data.table_files import check_ending, read_table, write_table
from lmmfast.errors import DataError
from lmmfast.prediction.new_rows import NEW_LEVELS

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.formula.spec import FormulaSpec
    from lmmfast.result import LMMResult


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``lmmfast predict``."""
    parser.description = (
        "Predict new rows by a fit that 'lmmfast fit --save' or fit.save() has written. Writes the "
        "rows with one more column. Exit code 1: an error; 2: wrong usage."
    )
    parser.add_argument("model", type=Path, help="file of the fit")
    parser.add_argument("data", type=Path, help=".csv, .tsv (.gz too) or .parquet file")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="file to write, its ending as above; default: CSV on the standard output",
    )
    parser.add_argument(
        "--level",
        default="conditional",
        help="'population': without random effects; 'conditional': with them (default); or the "
        "name of a grouping factor",
    )
    parser.add_argument(
        "--new-levels",
        choices=NEW_LEVELS,
        default="population",
        help="groups that the fit did not have: their population value (default), a missing value, "
        "or an error",
    )
    parser.add_argument(
        "--residual",
        choices=("process", "none"),
        default="process",
        help="'none': leave the process of a residual structure with a nugget, which takes rows "
        "of the fit, out of conditional predictions",
    )
    parser.add_argument(
        "--given",
        type=Path,
        metavar="FILE",
        help="rows with a response of groups that the fit does not have: predictions of these "
        "groups are conditional on them",
    )
    parser.add_argument(
        "--interval",
        choices=("confidence", "prediction"),
        help="three columns more, with the endings _se, _low and _high: 95 %% intervals for what "
        "is predicted, or for a new observation of it",
    )
    parser.add_argument(
        "--column", default="prediction", help="name of the new column (default: prediction)"
    )
    parser.add_argument(
        "--na",
        action="append",
        default=[],
        metavar="WORD",
        help="word for a missing value in a CSV file, beside the empty field; may be repeated",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="allow formulas in the file that can run any code, such as x - x.mean()",
    )


def predict(arguments: argparse.Namespace) -> pd.DataFrame:
    """Predict the rows of a file.

    Returns
    -------
    DataFrame
        The rows, with a column of predictions, and three of their errors if they are wanted.

    Raises
    ------
    DataError
        The model file cannot be used, or does not predict from tables; the rows cannot be
        predicted; they have a column of the new name already.
    """
    from lmmfast.persist.files import load
    from lmmfast.result import LMMResult

    if arguments.out is not None:
        check_ending(arguments.out)
    fit = load(arguments.model, trust=arguments.trust)
    if not isinstance(fit, LMMResult):
        raise DataError(f"{arguments.model}: holds many fits, which predict nothing")
    text = text_columns(fit, arguments.model)
    data = read_table(arguments.data, text, arguments.na)
    ends = ("", "_se", "_low", "_high") if arguments.interval else ("",)
    names = [arguments.column + end for end in ends]
    taken = next((name for name in names if name in data), None)
    if taken is not None:
        raise DataError(
            f"{arguments.data}: has a column {taken!r} already: choose another name by --column"
        )
    given = None
    if arguments.given is not None:
        given = read_table(arguments.given, text, arguments.na)
    try:
        found = fit.predict(
            data,
            arguments.level,
            arguments.new_levels,
            residual=arguments.residual,
            interval=arguments.interval,
            given=given,
        )
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(str(error)) from None
    if arguments.interval:
        found = found[["estimate", "std_error", "conf_low", "conf_high"]]
        data[names] = found.to_numpy()
    else:
        data[arguments.column] = found
    return data


def write(table: pd.DataFrame, out: Path | None) -> None:
    """Write a table to a file, or as CSV to the standard output."""
    if out is None:
        table.to_csv(sys.stdout, index=False)
    else:
        write_table(out, table)


def text_columns(fit: LMMResult, path: Path) -> set[str]:
    """Columns that are text in the fit: groups, factors."""
    from lmmfast.design.from_arrays import ArraySpec

    if isinstance(fit.spec, ArraySpec):
        raise DataError(
            f"{path}: the model was fitted to arrays: predict in Python by lf.load(path).predict()"
        )
    spec: FormulaSpec = fit.spec
    text = {
        name
        for columns, is_text in zip(spec.formula.factors, spec.text_keys, strict=True)
        for name in columns
        if is_text
    }
    return text | {n for n, levels in spec.levels.items() if all(type(v) is str for v in levels)}


def about(path: Path) -> dict[str, Any]:
    """Say what a model file holds; nothing is made of it.

    Raises
    ------
    DataError, OSError
        It cannot be used.
    """
    from lmmfast.persist.files import read_document

    document = read_document(path)
    try:
        facts = _FACTS[document["kind"]](document)
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path}: no model file of lmmfast: {error!r}") from None
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "kind": document["kind"],
        "lmmfast": document["lmmfast"],
        **facts,
    }


def _fit(document: Mapping[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    arrays = spec["kind"] == "arrays"
    x_names = document["x_names"]
    return {
        "formula": None if arrays else spec["formula"]["text"],
        "functions": [] if arrays else spec["formula"]["functions"],
        "method": document["method"],
        "residual": document["structure"] and document["structure"]["text"],
        "rows": document["nobs"],
        "groups": {factor["name"]: factor["n_groups"] for factor in document["factors"]},
        "random effects": all(factor["effects"] is not None for factor in document["factors"]),
        "params": dict(zip(x_names, document["beta"].tolist(), strict=True)),
        "log-likelihood": document["llf"],
        "certificate": document["certificate"]["status"],
    }


def _many(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": document["method"],
        "responses": len(document["y_names"]),
        "rows": document["nobs"],
        "groups": {document["group_name"]: document["ngroups"]},
    }


def _segments(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "formula": document["formula"],
        "method": document["method"],
        "segments": len(document["llf"]),
        "by": document["by"],
        "converged": int(document["converged"].sum()),
    }


_FACTS = {"fit": _fit, "fit_many": _many, "lmm_by": _segments}


def as_lines(facts: Mapping[str, Any]) -> list[str]:
    """One line for each fact that says something."""
    lines = []
    for name, value in facts.items():
        if value is None or value == []:
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {_shown(part)}" for key, part in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        lines.append(f"{name}: {_shown(value)}")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
