"""Whatever is given as an array to `fit` and `fit_many` is fitted or refused by a typed error."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import lmmfast as lf

X = np.column_stack([np.ones(6), np.arange(6.0) ** 2])
GOOD: dict[str, Any] = {"y": [1.0, 2, 3, 5, 4, 7], "X": X, "groups": [1, 1, 2, 2, 3, 3]}
ODD: dict[str, Any] = {
    "None": None,
    "empty mapping": {},
    "mapping without names": {1: np.arange(6.0)},
    "mapping of a number": {"a": 1},
    "empty list": [],
    "ragged": [[1, 2], [3]],
    "text": "abc",
    "bytes": b"x",
    "number": 5,
    "NaN": float("nan"),
    "flag": True,
    "object": object(),
    "set": {1},
    "no columns": np.zeros((6, 0)),
    "three dimensions": np.zeros((2, 3, 4)),
    "array of None": np.array([None] * 6),
    "array of text": np.array(["a"] * 6),
    "mixed list": [1, 2, 3, 4, 5, "x"],
    "array of NaN": np.full(6, np.nan),
    "infinite": np.full(6, np.inf),
    "masked": np.ma.masked_array(np.arange(6.0), mask=[1, 0, 0, 0, 0, 0]),
    "complex": np.arange(6.0) + 1j,
    "huge integers": np.array([2**70] * 6, dtype=object),
    "dates": np.zeros(6, dtype="M8[s]"),
    "wrong length": np.arange(4.0),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["y", "X", "groups", "Z", "weights", "offset", "start"])
def test_odd_arrays(name: str, odd: str) -> None:
    one = GOOD | {name: ODD[odd]}
    many = {k: v for k, v in one.items() if k not in ("y", "start")}
    many["Y"] = ODD[odd] if name == "y" else np.column_stack([GOOD["y"], GOOD["y"][::-1]])
    for function, arguments in ((lf.fit, one), (lf.fit_many, many)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lf.LmmWarning)
            try:
                fitted: Any = function(**arguments)
            except lf.LmmError as error:
                assert str(error)
                continue
        fine = np.isfinite(np.atleast_1d(fitted.llf))
        assert fine.all() or (
            function is lf.fit_many and name in ("y", "offset") and any(fitted.status)
        )
