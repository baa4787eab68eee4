"""Data that change after the fit, which holds views of them: errors, never numbers of neither."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.errors import DataError

FORMULA = "y ~ x + f + (1 + t | g)"


@pytest.fixture
def data():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(12), 5)
    d = pd.DataFrame({"g": g, "t": np.tile(np.arange(5.0), 12), "x": rng.normal(size=60)})
    d["f"] = pd.Categorical(rng.choice(["a", "b"], 60))
    d["w"], d["o"] = rng.uniform(0.5, 2, 60), rng.normal(size=60)
    d["y"] = d["x"] + rng.normal(size=12)[g] + rng.normal(size=60)
    return d


def arrays(data):
    """As a dict of arrays of one's own, written to in place without pandas' leave."""
    return {name: np.array(data[name]) for name in data}


USES = {
    "resid": lambda fit: fit.resid,
    "fittedvalues": lambda fit: fit.fittedvalues,
    "predict": lambda fit: fit.predict(),
    "normalized": lambda fit: fit.residuals("normalized"),
    "refit": lambda fit: fit.refit(np.sin(np.arange(60.0))),
    "acf": lambda fit: fit.acf(along="t"),
    "implied": lambda fit: fit.implied_covariance(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ["x", "t", "g", "w", "o"])
def test_columns_of_the_design(data, name, use):
    d = arrays(data)
    fit = lf.lmm(FORMULA, d, weights="w", offset="o")
    before = USES[use](fit)
    d[name][17] += 1
    with pytest.raises(DataError, match=f"'{name}' has changed since the fit"):
        USES[use](fit)
    d[name][17] -= 1
    if name in ("t", "g"):  # whole numbers, which come back to the last bit
        after = USES[use](fit)
        if use != "refit":
            np.testing.assert_array_equal(np.asarray(before), np.asarray(after))


@pytest.mark.parametrize("use", USES)
def test_the_response(data, use):
    """Refits and covariances do not look at it."""
    d = arrays(data)
    fit = lf.lmm(FORMULA, d)
    d["y"][0] = 7.0
    if use in ("refit", "implied"):
        USES[use](fit)
        return
    with pytest.raises(DataError, match="'y' has changed since the fit"):
        USES[use](fit)


def test_partitions_are_made_once(data):
    d = arrays(data)
    fits = [lf.lmm(FORMULA, d) for _ in range(2)]
    before = fits[0].variance_partition()
    d["t"][0] = 7.0
    pd.testing.assert_frame_equal(fits[0].variance_partition(), before)
    with pytest.raises(DataError, match="'t' has changed since the fit"):
        fits[1].variance_partition()


def test_frames_of_pandas(data):
    fit = lf.lmm("y ~ x + (1 | g)", data)
    resid = fit.resid
    data.loc[3, "x"] = 9.0
    with pytest.raises(DataError, match="'x' has changed"):
        _ = fit.resid
    assert np.isfinite(resid).all()
    again = lf.lmm("y ~ x + (1 | g)", data)
    assert np.isfinite(again.resid).all()


@pytest.mark.parametrize("what", ["y", "X", "Z", "groups", "weights"])
def test_arrays(data, what):
    given = {
        "y": data["y"].to_numpy().copy(),
        "X": np.column_stack([np.ones(60), data["x"]]),
        "groups": data["g"].to_numpy().copy(),
        "Z": np.column_stack([np.ones(60), data["t"]]),
        "weights": data["w"].to_numpy().copy(),
    }
    fit = lf.fit(**given)
    _ = fit.resid
    given[what][-1] *= 10
    with pytest.raises(DataError, match="has changed since the fit"):
        _ = fit.resid


@pytest.mark.parametrize("change", ["sort", "swap", "signs", "negate one"])
def test_changes_that_sums_do_not_see(data, change):
    d = arrays(data)
    fit = lf.lmm("y ~ x + (1 | g)", d)
    if change == "sort":
        d["x"].sort()
    elif change == "swap":
        d["x"][[3, 50]] = d["x"][[50, 3]]
    elif change == "signs":
        d["x"] *= -1
    else:
        d["x"][5] = -d["x"][5]
    with pytest.raises(DataError, match="'x' has changed"):
        _ = fit.resid


def test_no_false_alarms(data):
    d = arrays(data)
    fit = lf.lmm("y ~ x + (1 | g)", d)
    d["unused"] = d["y"] * 2
    d["x"] = d["x"] * 0  # another array of the same name: that of the fit is as it was
    assert np.isfinite(fit.resid).all()
    assert np.isfinite(copy.copy(fit).resid).all()
    bare, pickled = fit.remove_data(), pickle.loads(pickle.dumps(fit))
    d["y"][:] = 0
    for one in (bare, pickled):
        assert np.isfinite(one.predict({"x": np.ones(2)})).all()
        assert len(one.random_effects) == 12


def test_buffers_that_are_written_again_and_again(data):
    """A loop of a bootstrap: refits of one array are right, and know that they are of the past."""
    d = arrays(data)
    y = d["y"].copy()
    fit = lf.lmm("y ~ x + (1 | g)", d)
    first = fit.refit(y)
    _ = first.resid
    y[:] = np.random.default_rng(1).normal(size=60)
    second = fit.refit(y)
    expected = lf.lmm("y ~ x + (1 | g)", {**d, "y": y})
    np.testing.assert_allclose(second.resid, expected.resid, rtol=1e-6, atol=1e-8)
    with pytest.raises(DataError, match="'y' has changed"):
        _ = first.resid


def test_strides_and_types(data):
    """Items of every size, with gaps between them."""
    for dtype in ("f4", "i1", "i2", "u4", "i8", "?", "f8"):
        table = np.zeros(60, dtype=[("x", dtype), ("y", "f8"), ("g", "i8"), ("z", "i1")])
        table["y"], table["g"] = data["y"], data["g"]
        table["x"] = np.arange(60) % 2
        fit = lf.fit(table["y"], table["x"][:, None].astype(dtype), table["g"])
        _ = fit.resid
        wide = np.zeros((60, 20), dtype=dtype)
        wide[:, 4] = np.arange(60) % 2
        fit = lf.fit(table["y"], wide[:, 4:5], table["g"])
        before = fit.resid
        wide[:, 3] = 1  # no column of the model
        np.testing.assert_array_equal(fit.resid, before)
        wide[59, 4] = 0
        with pytest.raises(DataError, match="has changed"):
            _ = fit.resid


def test_threads_do_not_change_fingerprints():
    from lmmfast._dispatch import core

    rng = np.random.default_rng(5)
    columns = [rng.normal(size=n) for n in (0, 1, 7, 32768, 32769, 600_000)]
    columns += [columns[-1][::3], columns[-1].view(np.int32)[::2], columns[-1][::-1]]
    one, five = core.fingerprint(columns, 1), core.fingerprint(columns, 5)
    assert one == five
    assert len(set(one)) == len(columns)
    assert core.fingerprint([c.copy() for c in columns], 2) == one


def test_segments(data):
    d = {**arrays(data), "part": np.repeat([0, 1], 30)}
    fits = lf.lmm_by("y ~ x + (1 | g)", d, by="part")
    assert fits[1].llf == pytest.approx(fits.llf[1], rel=1e-10)
    kept = fits[1]
    d["y"][[10, 40]] += 3
    with pytest.raises(DataError, match="have changed since"):
        _ = fits[0]
    with pytest.raises(DataError, match="changed"):
        kept.resid()
