"""What a fit costs after it was made: a row predicted, a file written and read, a service asked.

    python benchmarks/production.py
    python benchmarks/production.py --groups 1e6
    python benchmarks/production.py --page docs/benchmarks.md   # the figures of the page

Labels of the groups are integers and texts. Times of single calls are medians, with the 99th
percentile; those of files the best of five.
"""

from __future__ import annotations

import argparse
import pickle
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lmmfast as lf

CALLS = 2_000
FILES = 5
ROWS = 1_000


def data(n_groups: int, text: bool) -> pd.DataFrame:
    """Three rows in each group, sorted."""
    rng = np.random.default_rng(0)
    label: Any = np.arange(n_groups) * 7
    label = np.char.add("user-", label.astype(str)).astype(object) if text else label
    t = np.tile([0.0, 1.0, 2.0], n_groups)
    b = np.repeat(rng.normal(size=(n_groups, 2)), 3, axis=0)
    y = 1 + t + b[:, 0] + b[:, 1] * t + rng.normal(size=len(t))
    return pd.DataFrame({"y": y, "t": t, "id": np.repeat(label, 3)})


def calls(function: Callable[[Any], Any], arguments: list[Any]) -> str:
    """Median and 99th percentile of the time of a call, in microseconds."""
    for argument in arguments[:20]:
        function(argument)
    taken = []
    for argument in arguments:
        start = time.perf_counter()
        function(argument)
        taken.append(time.perf_counter() - start)
    median, late = np.quantile(taken, [0.5, 0.99]) * 1e6
    return f"{median:,.0f} / {late:,.0f}"


def best(function: Callable[[], Any]) -> float:
    """Least time of several calls, in milliseconds."""
    taken = []
    for _ in range(FILES):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return 1e3 * min(taken)


def scoring(n_groups: int, text: bool) -> Iterator[list[str]]:
    """Rows of the table of single predictions."""
    frame = data(n_groups, text)
    fit = lf.lmm("y ~ t + (t | id)", frame)
    rng = np.random.default_rng(1)
    rows = [
        {"t": float(frame["t"].iloc[k]), "id": frame["id"].iloc[k]}
        for k in rng.integers(0, len(frame), CALLS)
    ]
    many = [frame[["t", "id"]].iloc[rng.integers(0, len(frame), ROWS)] for _ in range(40)]
    label = "text" if text else "integers"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.lmm")
        fit.save(path)
        loaded = lf.load(path).scorer()
        score = fit.scorer()
        yield [
            f"{n_groups:,}",
            label,
            calls(lambda row: score.one(**row), rows),
            calls(lambda row: loaded.one(**row), rows),
            calls(lambda row: fit.predict({k: [v] for k, v in row.items()}, "conditional"), rows),
            calls(score, many),
        ]


def files(n_groups: int, text: bool) -> Iterator[list[str]]:
    """Rows of the table of files."""
    fit = lf.lmm("y ~ t + (t | id)", data(n_groups, text))
    label = "text" if text else "integers"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.lmm")
        pickled = pickle.dumps(fit)
        yield [
            f"{n_groups:,}",
            label,
            f"{best(lambda: fit.save(path)):,.0f}",
            f"{path.stat().st_size / 1e6:.1f}",
            f"{best(lambda: lf.load(path)):,.1f}",
            f"{best(lambda: lf.load(path, verify=False)):,.1f}",
            f"{best(lambda: pickle.dumps(fit)):,.0f}",
            f"{len(pickled) / 1e6:.1f}",
            f"{best(lambda: pickle.loads(pickled)):,.1f}",
        ]


def saved(n_groups: int, text: bool, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A saved fit, and rows of its groups as a service is asked for them."""
    frame = data(n_groups, text)
    path = folder / "m.lmm"
    lf.lmm("y ~ t + (t | id)", frame).save(path)
    chosen = frame.iloc[np.random.default_rng(1).integers(0, len(frame), CALLS)]
    return path, chosen[["id", "t"]].to_dict("records")


def service(n_groups: int, text: bool) -> Iterator[list[str]]:
    """Rows of the table of the service."""
    from service_load import measure

    with tempfile.TemporaryDirectory() as folder:
        path, rows = saved(n_groups, text, Path(folder))
        for line in measure(path, rows, [1, 8]):
            yield [f"{n_groups:,}", "text" if text else "integers", *line]


def graphs(n_groups: int, text: bool) -> Iterator[list[str]]:
    """Rows of the table of ONNX graphs."""
    import onnxruntime

    frame = data(n_groups, text)
    fit = lf.lmm("y ~ t + (t | id)", frame)
    rng = np.random.default_rng(1)
    kind = object if text else np.int64
    chosen = [frame.iloc[rng.integers(0, len(frame), n)] for n in [1] * 500 + [ROWS] * 40]
    feeds = [
        {"t": part["t"].to_numpy(), "id": part["id"].to_numpy().astype(kind)} for part in chosen
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        written = best(lambda: fit.to_onnx(path))
        session = onnxruntime.InferenceSession(str(path))
        loaded = best(lambda: onnxruntime.InferenceSession(str(path)))
        for part, feed in zip(chosen[-5:], feeds[-5:], strict=True):
            assert (session.run(None, feed)[0] == fit.predict(part, "conditional")).all()
        yield [
            f"{n_groups:,}",
            "text" if text else "integers",
            f"{written:,.0f}",
            f"{path.stat().st_size / 1e6:.1f}",
            f"{loaded:,.0f}",
            calls(lambda feed: session.run(None, feed), feeds[:500]),
            calls(lambda feed: session.run(None, feed), feeds[500:]),
        ]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---:" if k != 1 else "---" for k in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(sizes: list[int]) -> str:
    """All tables."""
    cases = [(n, text) for n in sizes for text in (False, True)]
    one = ["groups", "labels", "`score.one`", "loaded", "`fit.predict`, one row", "1,000 rows"]
    columns = ["groups", "labels", "save ms", "MB", "load ms", "without checksums"]
    columns += ["pickle ms", "MB", "unpickle ms"]
    asked = ["groups", "labels", "connections", "requests/s", "ms"]
    graph = ["groups", "labels", "write ms", "MB", "load ms", "one row", "1,000 rows"]
    scored = [row for case in cases for row in scoring(*case)]
    kept = [row for case in cases for row in files(*case)]
    served = [row for case in cases[-2:] for row in service(*case)]
    drawn = [row for case in cases for row in graphs(*case)]
    return (
        "Predictions, microseconds, median / 99th percentile; `loaded` is the scorer of a file "
        "that is mapped into memory.\n\n"
        f"{table(one, scored)}\n\nFiles.\n\n{table(columns, kept)}\n\n"
        "The example service (uvicorn, one process; the client on the same two cores), one row a "
        "request, median / 99th percentile.\n\n"
        f"{table(asked, served)}\n\n"
        "ONNX graphs in onnxruntime, which give the bits of `fit.predict`; rows in microseconds, "
        f"median / 99th percentile.\n\n{table(graph, drawn)}\n"
    )


def main() -> None:
    """Measure, print, and put into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", nargs="+", type=float, default=[1e3, 1e6])
    parser.add_argument("--page", type=Path, help="page whose figures are replaced")
    options = parser.parse_args()
    text = report([int(n) for n in options.groups])
    print(text)
    if options.page is not None:
        marks = "<!-- begin: production -->\n", "<!-- end: production -->"
        page = options.page.read_text(encoding="utf-8")
        pattern = f"({re.escape(marks[0])}).*?({re.escape(marks[1])})"
        page, n = re.subn(pattern, lambda found: found[1] + text + found[2], page, flags=re.DOTALL)
        assert n == 1, f"{options.page} has no place for these figures"
        options.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
