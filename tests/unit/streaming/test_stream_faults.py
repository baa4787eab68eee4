"""What is wrong with files and streams is said with their names; nothing is dropped in silence."""

from __future__ import annotations

import errno
import os

import numpy as np
import pandas as pd
import pytest
from streamed_data import rows, scattered, write

import lmmfast as lf
from lmmfast.streaming import cuts, shuffle

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
FORMULA = "y ~ t + arm + (t | id)"


@pytest.fixture
def data():
    return rows(300).drop(columns="x")


@pytest.fixture
def folder(data, tmp_path):
    write(data, tmp_path, group_rows=200)
    return tmp_path


def change(folder, k, **columns):
    path = folder / f"part{k}.parquet"
    d = pd.read_parquet(path)
    d = d.assign(**{name: make(d) for name, make in columns.items()})
    d.to_parquet(path, index=False, row_group_size=200)


def refused(source, match, formula=FORMULA, error=lf.DataError, **options):
    with pytest.raises(error, match=match):
        lf.lmm(formula, source, **options)


def test_a_column_missing_in_one_file(folder):
    path = folder / "part1.parquet"
    pd.read_parquet(path).drop(columns="t").to_parquet(path)
    refused(folder, r"part1.parquet has no column 't'")


def test_types_that_have_none_in_common(folder):
    change(folder, 2, id=lambda d: d.id.astype(str))
    refused(folder, r"'id' is int64 in .*part0.parquet and .*string in .*part2.parquet")


def test_whole_numbers_in_one_file_and_fractions_in_another(folder, data):
    change(folder, 0, t=lambda d: d.t.round().astype("int32"))
    change(folder, 1, t=lambda d: d.t.astype("float32"))
    change(folder, 2, id=lambda d: d.id.astype("int32"))
    d = pd.concat([pd.read_parquet(one) for one in sorted(folder.iterdir())])
    assert lf.lmm(FORMULA, folder).llf == pytest.approx(lf.lmm(FORMULA, d).llf, rel=1e-12)


def test_a_file_twice(folder):
    path = str(folder / "part0.parquet")
    refused([path, path], "part0.parquet is there twice")
    if os.name == "posix":
        os.symlink(path, folder / "again.parquet")
        refused(folder, "is there twice")


def test_a_file_that_changes(folder, monkeypatch):
    from lmmfast.streaming import files

    plain = files._check_unchanged

    def touch(known):
        if known.path.endswith("part1.parquet"):
            os.utime(known.path, ns=(1, 1))
        plain(known)

    monkeypatch.setattr(files, "_check_unchanged", touch)
    refused(folder, "part1.parquet has changed while it was read")


def test_truncated_and_flipped_files(folder):
    path = folder / "part1.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused(folder, "part1.parquet cannot be read")
    path.write_bytes(whole)
    broken = bytearray(whole)
    first = pq.ParquetFile(path).metadata.row_group(1).column(1)
    assert first.path_in_schema == "t"
    start = first.dictionary_page_offset or first.data_page_offset
    broken[start + first.total_compressed_size // 2] ^= 4
    path.write_bytes(bytes(broken))
    refused(folder, r"row group 1 of .*part1.parquet cannot be read")


def test_empty_files_and_row_groups(folder, data):
    data.iloc[:0].to_parquet(folder / "empty.parquet", index=False)
    assert lf.lmm(FORMULA, folder).llf == pytest.approx(lf.lmm(FORMULA, data).llf, rel=1e-12)


def test_a_column_without_values_in_one_file(folder, data):
    table = pa.Table.from_pandas(data.head(40), preserve_index=False)
    at = table.schema.get_field_index("t")
    table = table.set_column(at, "t", pa.nulls(40))
    pq.write_table(table, folder / "null.parquet")
    fit = lf.lmm(FORMULA, folder)
    assert fit.missing_counts["t"] == 40
    assert fit.n_dropped == 40


def test_all_rows_missing(data, tmp_path):
    write(data.assign(t=np.nan), tmp_path)
    refused(tmp_path, r"all \d+ rows have missing values: 't'")
    write(data.head(0), tmp_path)
    refused(tmp_path, "no rows")


def test_missing_values_refused_and_counted(folder):
    change(folder, 1, id=lambda d: d.id.where(d.index != 7).astype("Int64"))
    refused(folder, r"'id' \(1 in row group 0 of .*part1", missing="raise")
    assert lf.lmm(FORMULA, folder).missing_counts == {"id": 1}


def test_infinite_values_and_weights(folder):
    change(folder, 1, t=lambda d: d.t.where(d.index != 203, np.inf))
    refused(folder, r"'t' is infinite in row 3 .* of row group 1 of .*part1.parquet")
    change(folder, 1, t=lambda d: d.w, w=lambda d: d.w.where(d.index != 5, 0.0))
    refused(folder, r"weights must be positive.*row 5 .*row group 0 of .*part1", weights="w")


def test_expressions_without_value(folder, monkeypatch):
    change(folder, 2, w=lambda d: d.w.where(d.index != 100, -1.0))
    refused(folder, r"'log\(w\)' is missing .*found in a sample", "y ~ log(w) + (1 | id)")
    monkeypatch.setattr("lmmfast.streaming.files.SAMPLE_ROWS", 20)
    refused(folder, r"'log\(w\)' is missing .* part beginning in .*part0", "y ~ log(w) + (1 | id)")


def test_groups_that_are_not_together(data, tmp_path, monkeypatch):
    monkeypatch.setattr(cuts, "CUT_CLUSTERS", 100)
    write(scattered(data), tmp_path)
    refused(lf.scan(tmp_path, sorted=True), "do not stand together")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_no_room_for_scratch_files(data, tmp_path, monkeypatch, number):
    (tmp_path / "data").mkdir()
    (tmp_path / "scratch").mkdir()
    write(scattered(data), tmp_path / "data")

    def full(self, held):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shuffle.Shuffled, "_write", full)
    scan = lf.scan(tmp_path / "data", scratch=tmp_path / "scratch")
    refused(scan, r"no room for scratch files in .*scratch \([\d,]+ MB free\)")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_streams_that_change_on_the_way(data):
    def batches(change):
        yield data.head(500)
        yield change(data.iloc[500:])

    refused(batches(lambda d: d.drop(columns="t")), "batch 1 of the stream has no column 't'")
    refused(batches(lambda d: d.assign(id=d.id.astype(str))), "'id' is int64 .* batch 1")
    refused(batches(lambda d: 3), "yields int, which is no table")
    refused(iter([]), "no tables")

    def recoded(d):
        return d.assign(arm=pd.Categorical(d.arm, categories=["c", "b", "a"], ordered=True))

    first = data.assign(arm=pd.Categorical(data.arm, categories=["a", "b", "c"], ordered=True))
    large = pd.concat([first] * 60)
    refused(iter([large, recoded(pd.concat([data] * 60))]), "ordered categories")


def test_names(folder):
    refused(folder, "did you mean 'arm'", "y ~ arn + (1 | id)", error=lf.FormulaError)
    refused(folder, "'z' .*is not a column", weights="z")
    refused(lf.scan(folder, columns=["y", "t", "id"]), "'arm'", error=lf.FormulaError)
    refused(folder / "no.parquet", "no such file")
    refused(str(folder / "*.csv"), "no such file")
    (folder / "deep").mkdir()
    refused(folder / "deep", "has no file")
    (folder / "a.csv").write_text("y\n1\n")
    refused(folder / "a.csv", "is a path, but of no Parquet file")


def test_models_that_are_not_streamed_say_what_to_do(folder, data):
    unsupported = {"error": lf.UnsupportedModelError}
    refused(folder, "into a table", residual=lf.AR1("t"), **unsupported)
    refused(folder, "into a table", "y ~ t + (1 | arm) + (1 | id)", **unsupported)
    refused(folder, r"center\(\)", "y ~ I(t - t.mean()) + (1 | id)", **unsupported)
    refused(folder, "read in pieces", engine="dense", **unsupported)
    refused(folder, "filter the source", subset="t > 0")
    refused(folder, "must name a column", weights=np.ones(len(data)))
    scan = lf.scan(folder, memory="1MB")
    object.__setattr__(scan, "memory", 1000)
    refused(scan, "learn='sample'", "y ~ scale(t) + (1 | id)", error=lf.TooLargeError)


def test_levels_whose_order_differs_between_files(data, tmp_path):
    for k, order in enumerate((["a", "b", "c"], ["c", "b", "a"])):
        arm = pd.Categorical(data.arm, categories=order, ordered=True)
        part = data.assign(arm=arm).iloc[k * 500 : (k + 1) * 500]
        part.to_parquet(tmp_path / f"{k}.parquet", index=False)
    refused(tmp_path, r"ordered categories of 'arm' are others in row group 0 of .*1.parquet")


def test_levels_seen_in_a_later_file_alone(data, tmp_path):
    d = data.assign(arm=np.where(data.index < 900, data.arm, "z"))
    pattern = write(d, tmp_path)
    assert lf.lmm(FORMULA, pattern).llf == pytest.approx(lf.lmm(FORMULA, d).llf, rel=1e-12)
