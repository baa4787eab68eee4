"""The command line: ``lmmfast fit``, ``predict``, ``append``, ``compare``, ``info``, ``demo``."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lmmfast.cli_more import add_append, add_compare, append, compare, effects_table
from lmmfast.cli_saved import about, add_predict, as_lines, predict, write
from lmmfast.data.many_files import read_tables
from lmmfast.data.table_files import check_ending, write_table
from lmmfast.errors import DataError, LmmError, LmmWarning
from lmmfast.residual.read_text import structure_of_text

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

T = TypeVar("T")

# Exit codes; argparse ends with 2 on wrong usage.
OK, ERROR, NOT_CONVERGED, INTERRUPTED = 0, 1, 3, 130

EPILOG = """\
examples:
  lmmfast fit 'y ~ t + (t | id)' january.parquet february.parquet --save m.lmm --clusters
  lmmfast fit 'y ~ visit * arm' trial.csv --groups id --residual "Unstructured('visit')" --json
  gunzip -c rows.csv.gz | lmmfast fit 'y ~ t + (1 | id)' - --effects effects.csv
  lmmfast predict m.lmm new.parquet -o out.parquet --interval prediction
  lmmfast append m.lmm march.parquet
  lmmfast compare small.lmm large.lmm
  lmmfast info m.lmm --json

exit codes:
  0    done
  1    an error, told in one line on the standard error
  2    wrong usage
  3    the fit did not converge; it is printed, and saved where --save says, all the same
  130  interrupted

A formula can run code: never take one from a source you do not trust.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: an error, told in one line on the standard error; 2: wrong usage; 3: the fit did not
    converge (its result is printed all the same).
    """
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
        sys.stdout.flush()
    except (LmmError, OSError, MemoryError, ImportError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe has seen enough (`| head`); nothing may be flushed at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return OK
        _complain("error", error)
        return ERROR
    except KeyboardInterrupt:
        _complain("error", "interrupted")
        return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    import lmmfast

    parser = argparse.ArgumentParser(
        prog="lmmfast",
        description="Gaussian linear mixed models for very many small clusters.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lmmfast {lmmfast.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_fit(commands.add_parser("fit", help="fit a model to a file and print its summary"))
    saved = commands.add_parser("predict", help="predict new rows by a saved fit")
    add_predict(saved)
    saved.set_defaults(command=_predict)
    more = commands.add_parser("append", help="fit new rows together with those of a saved fit")
    add_append(more)
    more.set_defaults(command=_append)
    several = commands.add_parser("compare", help="compare saved fits to the same rows")
    add_compare(several)
    several.set_defaults(command=_compare)
    demo = commands.add_parser(
        "demo", help="fit the hepatitis data, answer the questions about them, draw a picture"
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where the picture goes (default: .)",
    )
    demo.set_defaults(command=_demo)
    info = commands.add_parser(
        "info", help="print version, instruction set and threads, or what a model file holds"
    )
    info.add_argument("model", type=Path, nargs="?", help="file of a saved fit")
    info.add_argument("--json", action="store_true", help="print one JSON document")
    info.set_defaults(command=_info)
    return parser


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fit a linear mixed model to a file and print its summary. Exit code 1: an error; 2: wrong "
        "usage; 3: not converged (the result is printed all the same)."
    )
    parser.add_argument("formula", help="lme4's notation, such as 'y ~ t + (t | id)'")
    parser.add_argument(
        "data",
        type=Path,
        nargs="+",
        help=".csv, .tsv (.gz too) or .parquet files of the same columns; '-': CSV on the standard "
        "input",
    )
    parser.add_argument(
        "--residual",
        metavar="STRUCTURE",
        help="covariance of the residuals, as in Python: \"AR1('visit', by='arm')\"",
    )
    parser.add_argument(
        "--groups",
        metavar="COL",
        help="column of the clusters, for models without random effects; 'a:b' combines two",
    )
    parser.add_argument("--ml", action="store_true", help="maximum likelihood instead of REML")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="save the fit to a file, for 'lmmfast predict' and lmmfast.load()",
    )
    parser.add_argument(
        "--clusters",
        action="store_true",
        help="save the packed clusters too, for 'lmmfast append' and robust variances",
    )
    parser.add_argument(
        "--effects",
        type=Path,
        metavar="FILE",
        help="write the random effects to a table: factor, group, effect, value",
    )
    parser.add_argument("--weights", metavar="COL", help="column of known weights")
    parser.add_argument("--offset", metavar="COL", help="column added to the mean")
    parser.add_argument(
        "--subset", metavar="EXPR", help="rows to be used, such as \"age > 40 & arm == 'A'\""
    )
    parser.add_argument(
        "--missing",
        choices=("drop", "raise"),
        default="drop",
        help="leave out rows with missing values (default), or refuse them",
    )
    parser.add_argument(
        "--na",
        action="append",
        default=[],
        metavar="WORD",
        help="word for a missing value in a CSV file, beside the empty field; may be repeated",
    )
    parser.add_argument(
        "--identifiable",
        choices=("raise", "warn"),
        default="raise",
        help="refuse variances that the data cannot tell apart (default), or fit with a warning",
    )
    parser.add_argument("--threads", type=_positive, metavar="N", help="default: all available")
    parser.add_argument(
        "--max-iter", type=_positive, metavar="N", help="most evaluations of the likelihood"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="report each evaluation on the standard error"
    )
    parser.set_defaults(command=_fit)


def _positive(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return value


def _fit(arguments: argparse.Namespace) -> int:
    from lmmfast.api import lmm

    options: dict[str, Any] = {} if arguments.max_iter is None else {"max_iter": arguments.max_iter}
    if arguments.clusters and arguments.save is None:
        raise DataError("--clusters says what is saved: give --save FILE too")
    if arguments.effects is not None:
        check_ending(arguments.effects)
    if arguments.residual is not None:
        options["residual"] = structure_of_text(arguments.residual)
    if arguments.groups is not None:
        options["groups"] = arguments.groups.split(":")
    text = {*_group_columns(arguments.formula), *options.get("groups", ())}
    data = read_tables(arguments.data, text, arguments.na)
    fit = _with_warnings(
        lambda: lmm(
            arguments.formula,
            data,
            reml=not arguments.ml,
            weights=arguments.weights,
            offset=arguments.offset,
            subset=arguments.subset,
            missing=arguments.missing,
            identifiable=arguments.identifiable,
            n_jobs=arguments.threads,
            verbose=int(arguments.verbose),
            **options,
        )
    )
    if arguments.save is not None:
        fit.save(arguments.save, clusters=arguments.clusters)
    if arguments.effects is not None:
        write_table(arguments.effects, effects_table(fit))
    return _report(fit, arguments.formula, arguments.json)


def _report(fit: LMMResult, formula: str, as_document: bool) -> int:
    """Print a fit, and say by the exit code whether it converged."""
    if as_document:
        print(json.dumps(as_json(fit, formula), indent=2, allow_nan=False))
    else:
        print(fit.summary())
    return OK if fit.converged else NOT_CONVERGED


def _append(arguments: argparse.Namespace) -> int:
    fit = _with_warnings(lambda: append(arguments))
    return _report(fit, fit.spec.formula.text, arguments.json)


def _compare(arguments: argparse.Namespace) -> int:
    table = _with_warnings(lambda: compare(arguments))
    if arguments.json:
        print(json.dumps(_plain(table.to_dict("index")), indent=2, allow_nan=False))
    else:
        print(table.to_string())
    return OK


def _with_warnings(work: Callable[[], T]) -> T:
    """Do the work; tell its warnings in a line each, and what it prints, on the standard error."""
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(sys.stderr):
        warnings.simplefilter("always", LmmWarning)
        done = work()
    for warning in caught:
        _complain("warning", warning.message)
    return done


def _predict(arguments: argparse.Namespace) -> int:
    write(_with_warnings(lambda: predict(arguments)), arguments.out)
    return OK


def _group_columns(formula: str) -> tuple[str, ...]:
    """Columns that the grouping factors are made of; none where the formula cannot be read."""
    from lmmfast.formula.parse import parse_formula

    try:
        return parse_formula(formula).group_columns
    except LmmError:
        return ()  # the fit says what is wrong with it


def _demo(arguments: argparse.Namespace) -> int:
    from lmmfast.demo import run

    for text in run(arguments.out):
        print(text)
    return OK


def _info(arguments: argparse.Namespace) -> int:
    import lmmfast

    facts = lmmfast.build_info() if arguments.model is None else about(arguments.model)
    if arguments.json:
        print(json.dumps(_plain(facts), indent=2, allow_nan=False))
        return OK
    for line in as_lines(facts):
        print(line)
    return OK


def as_json(fit: LMMResult, formula: str) -> dict[str, Any]:
    """Collect a fit's numbers in plain types; what is not a number becomes None."""
    from lmmfast.report.summary import theta_errors

    certificate = fit.certificate
    groups = [
        {"name": name, "count": m, "smallest": smallest, "mean": mean, "largest": largest}
        for name, (m, (smallest, mean, largest)) in fit._grouping.items()
    ]
    document = {
        "formula": formula,
        "method": fit.method,
        "nobs": fit.nobs,
        "n_dropped": fit.n_dropped,
        "groups": groups[0] if len(groups) == 1 else groups,
        "params": fit.params.to_dict(),
        "bse": fit.bse.to_dict(),
        "pvalues": fit.pvalues.to_dict(),
        "scale": fit.scale,
        "theta": fit.theta.to_dict(),
        "theta_se": theta_errors(fit).to_dict(),
        "identified_sums": fit.identified_sums[["estimate", "std_error"]].to_dict("index"),
        "llf": fit.llf,
        "deviance": fit.deviance,
        "aic": fit.aic,
        "bic": fit.bic,
        "dropped_columns": fit.dropped_columns,
        "certificate": {
            "converged": certificate.converged,
            "status": certificate.status,
            "decrement": certificate.decrement,
            "smallest_eigenvalue": certificate.smallest_eigenvalue,
            "rank": {name: list(rank) for name, rank in certificate.rank.items()},
            "multiplier": certificate.multiplier,
            "evaluations": certificate.evaluations,
        },
    }
    plain: dict[str, Any] = _plain(document)
    return plain


def _plain(value: Any) -> Any:
    """Replace NumPy's numbers by Python's and NaN and infinity by None."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _complain(kind: str, message: object) -> None:
    text = " ".join(str(message).split()) or type(message).__name__
    print(f"lmmfast: {kind}: {text}", file=sys.stderr)
