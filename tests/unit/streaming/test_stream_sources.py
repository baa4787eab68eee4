"""Whatever has rows in batches can be fitted."""

from __future__ import annotations

import numpy as np
import pytest
from streamed_data import rows, scattered, write

import lmmfast as lf

pa = pytest.importorskip("pyarrow")
FORMULA = "y ~ t + arm + x + (t | id)"


@pytest.fixture(scope="module")
def data():
    return rows(800)


@pytest.fixture(scope="module")
def expected(data):
    return lf.lmm(FORMULA, data)


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(data, folder)
    return folder


def check(source, expected):
    fit = lf.lmm(FORMULA, source)
    assert fit.llf == pytest.approx(expected.llf, rel=1e-12)
    assert fit.n_dropped == expected.n_dropped
    assert np.abs((fit.params - expected.params) / expected.bse).max() < 1e-8


def test_paths(folder, expected):
    files = sorted(folder.glob("*.parquet"))
    for source in (folder, str(folder), str(folder / "*.parquet"), files, [str(f) for f in files]):
        check(source, expected)
    check(lf.scan(lf.scan(folder), batch_rows=100), expected)


def test_pyarrow(data, folder, expected):
    dataset = pytest.importorskip("pyarrow.dataset")
    check(dataset.dataset(folder), expected)
    check(dataset.dataset(folder).scanner(), expected)
    table = pa.Table.from_pandas(data, preserve_index=False)
    check(pa.RecordBatchReader.from_batches(table.schema, table.to_batches(300)), expected)


def test_polars(data, folder, expected):
    pl = pytest.importorskip("polars")
    check(pl.scan_parquet(folder / "*.parquet"), expected)
    check(pl.from_pandas(scattered(data)).lazy(), expected)


def test_duckdb(folder, expected):
    duckdb = pytest.importorskip("duckdb")
    check(duckdb.sql(f"select * from '{folder}/*.parquet' order by id"), expected)


def test_iterators_of_any_table(data, expected):
    pieces = [data.iloc[k : k + 150] for k in range(0, len(data), 150)]
    check(iter(pieces), expected)
    check((pa.Table.from_pandas(one, preserve_index=False) for one in pieces), expected)
    check((one.to_dict("list") for one in pieces), expected)


def test_anything_with_arrows_stream(data, expected):
    class Foreign:
        def __init__(self, table):
            self.table = table

        def __arrow_c_stream__(self, requested_schema=None):
            return self.table.__arrow_c_stream__(requested_schema)

    check(Foreign(pa.Table.from_pandas(data, preserve_index=False)), expected)


def test_tables_stay_in_memory(data, expected):
    fit = lf.lmm(FORMULA, pa.Table.from_pandas(data, preserve_index=False))
    assert len(fit.fitted()) == fit.nobs


def test_scratch_files_go(data, tmp_path, expected):
    check(lf.scan(iter([scattered(data)]), scratch=tmp_path), expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("order", "stages"),
    [
        (lambda d: d, ["copy", "learn", "pack"]),
        (scattered, ["copy", "learn", "distribute", "pack"]),
    ],
)
def test_progress(data, order, stages):
    d, seen = order(data), []
    formula = FORMULA.replace("+ x", "+ scale(o)")
    lf.lmm(formula, lf.scan(iter([d]), batch_rows=500, progress=seen.append))
    assert list(dict.fromkeys(one["stage"] for one in seen)) == stages
    for stage in stages:
        rows_done = [one["rows"] for one in seen if one["stage"] == stage]
        assert rows_done == sorted(rows_done)
        assert rows_done[-1] == len(d)
        assert {one["of"] for one in seen if one["stage"] == stage} == {
            None if stage == "copy" else len(d)
        }

    def stop(entry):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lf.lmm(formula, lf.scan(iter([d]), progress=stop))


@pytest.mark.parametrize(
    ("text", "size"), [("512MB", 512 << 20), ("2 GiB", 2 << 30), ("1.5g", 3 << 29), (1e8, 10**8)]
)
def test_memory(text, size):
    assert lf.scan("x.parquet", memory=text).memory == size


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "much"},
        {"memory": 10},
        {"sorted": "yes"},
        {"learn": "all"},
        {"batch_rows": 0},
        {"scratch": "/no/such/folder"},
        {"progress": 3},
    ],
)
def test_arguments_of_scan(options):
    with pytest.raises(lf.DataError, match=next(iter(options))):
        lf.scan("x.parquet", **options)
