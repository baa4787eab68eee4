"""CSV files are read as they are meant, or refused with the line at fault."""

import json
import time

import numpy as np
import pytest

import lmmfast as lf
from lmmfast.cli import main
from lmmfast.data.csv_files import read_csv
from lmmfast.errors import DataError

FORMULA = "y ~ t + (1 | g)"


@pytest.fixture
def rows():
    rng = np.random.default_rng(8)
    g = np.repeat(["01", "1", "NA", "NO", "SE", "007"], 6)
    t = np.tile(np.arange(6), 6)
    y = t + np.repeat(rng.standard_normal(6), 6) + 0.3 * rng.standard_normal(36)
    return [[f"{a:.6f}", str(b), c] for a, b, c in zip(y, t, g, strict=True)]


def written(path, rows, header="y,t,g"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return str(path)


def test_groups_are_text_and_NA_is_a_country(tmp_path, rows, capsys):
    assert main(["fit", FORMULA, written(tmp_path / "d.csv", rows), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    y, t, g = map(list, zip(*rows, strict=True))
    fit = lf.lmm(FORMULA, {"y": np.array(y, float), "t": np.array(t, float), "g": np.array(g)})
    assert found["groups"]["count"] == 6
    assert found["nobs"] == 36
    assert found["n_dropped"] == 0
    assert found["llf"] == fit.llf
    assert found["aic"] == fit.aic


def test_only_empty_fields_are_missing_unless_told(tmp_path, rows, capsys):
    rows[4][1], rows[7][1] = "", "NA"
    path = written(tmp_path / "d.csv", rows)
    assert main(["fit", FORMULA, path]) == 1
    error = capsys.readouterr().err
    assert "line 9, column 't': 'NA' among numbers: pass --na 'NA'" in error
    assert main(["fit", FORMULA, path, "--na", "NA", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # The group NA is missing then, too.
    assert found["groups"]["count"] == 5
    rows[7][1] = "."
    assert main(["fit", FORMULA, written(tmp_path / "d.csv", rows), "--na", ".", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["nobs"], found["groups"]["count"]) == (34, 6)


@pytest.mark.parametrize("separator", [",", "\t"])
def test_rows_of_other_lengths(tmp_path, rows, separator):
    path = tmp_path / "d.csv"
    header = separator.join("ytg")
    lines = [separator.join(row) for row in rows]
    for broken, count in ((lines[9] + separator + "x", 4), (separator.join(rows[9][:2]), 2)):
        path.write_text("\n".join([header, *lines[:9], broken, *lines[10:]]))
        with pytest.raises(DataError, match=f"line 11 has {count} fields, and the header has 3"):
            read_csv(path, separator)
    # Every row has one more: pandas would take the first column for row labels.
    path.write_text("\n".join([header, *(line + separator for line in lines)]))
    with pytest.raises(DataError, match="line 2 has 4 fields"):
        read_csv(path, separator)


def test_decimal_commas(tmp_path, rows):
    commas = [[row[0].replace(".", ","), *row[1:]] for row in rows]
    path = written(tmp_path / "d.csv", commas)
    with pytest.raises(DataError, match=r"line 2 has 4 fields.*decimal commas"):
        read_csv(tmp_path / "d.csv", ",")
    (tmp_path / "d.tsv").write_text("y\tt\tg\n" + "\n".join("\t".join(row) for row in commas))
    with pytest.raises(DataError, match=r"line 2, column 'y'.*decimal comma: write decimal points"):
        read_csv(tmp_path / "d.tsv", "\t")
    quoted = [[f'"{row[0]}"', *row[1:]] for row in commas]
    path = written(tmp_path / "q.csv", quoted)
    assert main(["fit", FORMULA, path]) == 1


def test_lines_are_counted_over_quoted_breaks_and_blank_lines(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('x,note\n1,"two\nlines"\n\n2,b\nNA,c\n')
    with pytest.raises(DataError, match="line 6, column 'x'"):
        read_csv(path, ",")
    assert read_csv(path, ",", missing=["NA"])["x"].tolist()[:2] == [1.0, 2.0]


def test_categories_stay_categories(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("x,z\n1,NA\n3a,b\n2,None\n")
    data = read_csv(path, ",")
    assert data["x"].tolist() == ["1", "3a", "2"]
    assert data["z"].tolist() == ["NA", "b", "None"]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "\n".join([",".join(["x"] * 200_000)] * 2)])
def test_very_wide_lines_end_soon(tmp_path, content):
    path = tmp_path / "d.csv"
    path.write_text(content.replace("1,2", ",".join(["1"] * 200_000)))
    begin = time.perf_counter()
    with pytest.raises(DataError, match=r"has 200000 fields|several columns"):
        read_csv(path, ",")
    assert time.perf_counter() - begin < 20


def test_a_file_of_one_huge_field(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("a,b\n1," + "x" * 1_000_000 + "\n")
    with pytest.raises(DataError, match="line 2: field larger"):
        read_csv(path, ",")
