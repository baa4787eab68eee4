"""Rows appended in place: the same fit as with copies, and nothing changed by what fails."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf

SLOPE = "y ~ t + x + (t | g)"


def made(m: int = 60, n_i: int = 5, seed: int = 1, first: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(m), n_i), np.tile(np.arange(float(n_i)), m)
    b, x = rng.normal(size=(m, 2)), rng.normal(size=m * n_i)
    y = 1 + 0.5 * t - x + b[g, 0] + b[g, 1] * t + rng.normal(size=m * n_i)
    return pd.DataFrame({"y": y, "t": t, "x": x, "g": first + g})


def same(a: lf.LMMResult, b: lf.LMMResult) -> None:
    assert a.llf == b.llf
    pd.testing.assert_series_equal(a.params, b.params, check_exact=True)
    pd.testing.assert_frame_equal(a.random_effects, b.random_effects, check_exact=True)


def test_many_times():
    """Known groups, new ones, both; room runs out on the way."""
    copied = placed = lf.lmm(SLOPE, made())
    for k in range(12):
        more = made(3 + k, seed=10 + k, first=50 + 4 * k)
        before, copied = placed, copied.append(more)
        placed = placed.append(more, in_place=True)
        if before is not copied and k:
            with pytest.raises(lf.DataError, match="need the data"):
                before.append(more)
        same(placed, copied)


def test_the_clusters_are_not_copied():
    fit = lf.lmm(SLOPE, made()).append(made(1, seed=2), in_place=True)
    where = fit._engine.clusters.blocks.ctypes.data
    for first in (0, 60):
        fit = fit.append(made(2, seed=3, first=first), in_place=True)
        assert fit._engine.clusters.blocks.ctypes.data == where


def test_a_fit_stays_as_it_is_where_appending_fails(monkeypatch):
    fit = lf.lmm(SLOPE, made()).append(made(2, seed=2), in_place=True)
    more = made(20, seed=3, first=55)
    expected = fit.append(more)
    blocks = fit._engine.clusters.blocks.copy()
    for bad in (more.assign(y=np.inf), more.assign(t=1e9 + more["x"])):
        with pytest.raises(lf.DataError):
            fit.append(bad, in_place=True)
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("lmmfast.fitting.append.fit_prepared", stop)
        with pytest.raises(KeyboardInterrupt):
            fit.append(more, in_place=True)
    np.testing.assert_array_equal(fit._engine.clusters.blocks, blocks)
    same(fit.append(more, in_place=True), expected)


def test_clusters_of_a_file_are_copied_once(tmp_path):
    fit = lf.lmm(SLOPE, made())
    fit.save(tmp_path / "m.lmm", clusters=True)
    more = made(20, seed=3, first=55)
    same(lf.load(tmp_path / "m.lmm").append(more, in_place=True), fit.append(more))
