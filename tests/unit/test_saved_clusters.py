"""Fits saved with their packed clusters go on after loading as they would have before."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf


def made(m: int = 40, n_i: int = 5, seed: int = 1, first: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = m * n_i
    g, t = np.repeat(np.arange(m), n_i), np.tile(np.arange(float(n_i)), m)
    b = rng.normal(size=(m, 2)) @ np.array([[1.0, 0.3], [0.0, 0.6]])
    x = rng.normal(size=n)
    y = 1 + 0.5 * t - x + b[g, 0] + b[g, 1] * t + rng.normal(size=n)
    return pd.DataFrame({"y": y, "t": t, "x": x, "g": first + g, "name": [f"n{k}" for k in g]})


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("group", ["g", "name"])
def test_rows_are_appended_after_loading(tmp_path, group, mmap):
    data, more = made(), made(12, seed=2, first=34).assign(name=lambda d: "n" + d["g"].astype(str))
    fit = lf.lmm(f"y ~ scale(t) + x + (t | {group})", data.sample(frac=1, random_state=3))
    fit.save(tmp_path / "m.lmm", clusters=True)
    saved = lf.load(tmp_path / "m.lmm", mmap=mmap)
    expected, found = fit.append(more), saved.append(more)
    pd.testing.assert_series_equal(found.params, expected.params, check_exact=True)
    pd.testing.assert_series_equal(found.theta, expected.theta, check_exact=True)
    assert found.llf == expected.llf
    pd.testing.assert_frame_equal(found.random_effects, expected.random_effects, check_exact=True)


@pytest.mark.parametrize("vcov", ["CR0", "CR1", "CR2", "CR3"])
def test_robust_variances_after_loading(tmp_path, vcov):
    fit = lf.lmm("y ~ t + x + (t | g)", made())
    fit.save(tmp_path / "m.lmm", clusters=True)
    saved = lf.load(tmp_path / "m.lmm")
    expected = fit.inference(vcov=vcov).tidy()
    pd.testing.assert_frame_equal(saved.inference(vcov=vcov).tidy(), expected, check_exact=True)


def test_covariances_of_effects_and_the_likelihood_after_loading(tmp_path):
    fit = lf.lmm("y ~ t + x + (t | g)", made())
    fit.save(tmp_path / "m.lmm", clusters=True)
    saved = lf.load(tmp_path / "m.lmm")
    np.testing.assert_array_equal(saved.random_effects_cov, fit.random_effects_cov)
    assert saved.at(fit.theta).llf == fit.at(fit.theta).llf
    saved.save(tmp_path / "again.lmm", clusters=True)
    assert (tmp_path / "again.lmm").read_bytes() == (tmp_path / "m.lmm").read_bytes()


def test_arrays_and_appended_rows(tmp_path):
    data, more = made(), made(8, seed=2, first=34)
    X = np.column_stack([np.ones(len(data)), data["t"], data["x"]])
    fit = lf.fit(data["y"], X, data["g"], X[:, :2])
    X = np.column_stack([np.ones(len(more)), more["t"], more["x"]])
    rest = more["y"], X, more["g"], X[:, :2]
    fit.save(tmp_path / "m.lmm", clusters=True)
    whole, once = fit.append(*rest), lf.load(tmp_path / "m.lmm").append(*rest)
    assert whole.llf == once.llf
    once.save(tmp_path / "m.lmm", clusters=True)
    twice = lf.load(tmp_path / "m.lmm").append(*rest)
    assert twice.llf == whole.append(*rest).llf
    with pytest.raises(lf.DataError, match="appended rows"):
        twice.inference(vcov="CR1").tidy()


def test_what_has_no_packed_clusters(tmp_path):
    data = made()
    data["h"] = data["g"] // 5
    for fit in (
        lf.lmm("y ~ t + (1 | h/g)", data),
        lf.lmm("y ~ t + (1 | g)", data, residual=lf.AR1("t")),
    ):
        with pytest.raises(lf.UnsupportedModelError, match="no packed clusters"):
            fit.save(tmp_path / "m.lmm", clusters=True)
    assert not list(tmp_path.iterdir())
    fit = lf.lmm("y ~ t + (1 | g)", data)
    fit.save(tmp_path / "m.lmm")
    with pytest.raises(lf.DataError, match="packed clusters need the data"):
        lf.load(tmp_path / "m.lmm").save(tmp_path / "n.lmm", clusters=True)
