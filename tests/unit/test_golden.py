"""Model files of every released version are read, with the numbers that were saved."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import lmmfast as lf
from lmmfast.persist.files import FORMAT, read_document

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("*/*.lmm"))

sys.path.insert(0, str(GOLDEN))

from models import facts, models  # noqa: E402


def close(found, expected, where):
    """Equal, but for numbers: libraries may round the last digit of a spline otherwise."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            close(found[key], expected[key], f"{where}, {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for k, (one, other) in enumerate(zip(found, expected, strict=True)):
            close(one, other, f"{where}, {k}")
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=1e-13, err_msg=where)
    else:
        assert found == expected, where


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
@pytest.mark.parametrize("mmap", [True, False])
def test_files_of_releases(file, mmap):
    expected = json.loads((file.parent / "expected.json").read_text(encoding="utf-8"))
    assert read_document(file)["lmmfast"] == file.parent.name
    close(facts(file.stem, lf.load(file, mmap=mmap)), expected[file.stem], file.name)


def test_every_kind_of_fit_has_a_file_of_this_format():
    kinds = {file.stem for file in FILES if read_document(file)}
    assert kinds == set(models())
    assert FORMAT == 1


def test_structures_are_where_pickles_of_0_1_have_them():
    from lmmfast.covariance import random, terms
    from lmmfast.residual import structures

    assert random.Term is terms.Term
    assert type(lf.D.cs()) is random.HeterogeneousCS
    assert structures.Toeplitz is lf.Toeplitz
    assert isinstance(lf.AR1("visit").correlation, structures.Correlation)
