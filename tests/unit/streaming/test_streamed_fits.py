"""Fits of streams are those of the same rows in memory, whatever batches and threads."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from streamed_data import FORMULA, rows, scattered, write

import lmmfast as lf
from lmmfast.streaming import cuts, store

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def data():
    return rows()


@pytest.fixture(scope="module")
def in_memory(data):
    return lf.lmm(FORMULA, data)


@pytest.fixture(scope="module")
def pattern(data, tmp_path_factory):
    return write(data, tmp_path_factory.mktemp("sorted"))


@pytest.fixture(scope="module")
def mixed(data, tmp_path_factory):
    return write(scattered(data), tmp_path_factory.mktemp("mixed"))


def assert_same(fit, expected):
    assert list(fit.params.index) == list(expected.params.index)
    assert np.abs((fit.params - expected.params) / expected.bse).max() < 1e-8
    np.testing.assert_allclose(fit.bse, expected.bse, rtol=1e-8)
    np.testing.assert_allclose(fit.theta, expected.theta, rtol=1e-7, atol=1e-8)
    assert fit.llf == pytest.approx(expected.llf, rel=1e-12)
    assert (fit.nobs, fit.ngroups, fit.n_dropped) == (
        expected.nobs,
        expected.ngroups,
        expected.n_dropped,
    )
    assert fit.group_sizes == expected.group_sizes
    assert fit.missing_counts == expected.missing_counts
    effects = fit.random_effects
    wanted = expected.random_effects.loc[effects.index]  # combinations are sorted as text
    pd.testing.assert_frame_equal(effects, wanted, rtol=1e-6, atol=1e-7)


def assert_bits(fit, other):
    assert fit.llf == other.llf
    np.testing.assert_array_equal(fit.params, other.params)
    np.testing.assert_array_equal(fit.theta, other.theta)
    np.testing.assert_array_equal(fit.random_effects, other.random_effects)


def test_sorted_files(pattern, in_memory):
    fit = lf.lmm(FORMULA, pattern)
    assert_same(fit, in_memory)
    assert fit.converged


def test_scattered_files(mixed, in_memory):
    assert_same(lf.lmm(FORMULA, mixed), in_memory)


@pytest.mark.parametrize("source", ["pattern", "mixed"])
def test_the_same_bits_for_any_batches_and_threads(source, request, monkeypatch):
    monkeypatch.setattr(cuts, "CUT_CLUSTERS", 300)
    path = request.getfixturevalue(source)
    first = lf.lmm(FORMULA, lf.scan(path), n_jobs=1)
    for batch_rows, n_jobs in ((1, 1), (97, 2), (5000, 3)):
        if batch_rows == 1:
            path_or = lf.scan(path, batch_rows=50)
        else:
            path_or = lf.scan(path, batch_rows=batch_rows)
        assert_bits(lf.lmm(FORMULA, path_or, n_jobs=n_jobs), first)


def test_cuts_by_rows_and_by_clusters_agree_with_memory(pattern, in_memory, monkeypatch):
    monkeypatch.setattr(cuts, "CUT_ROWS", 37)
    assert_same(lf.lmm(FORMULA, pattern), in_memory)


def test_several_partitions(mixed, in_memory):
    assert_same(lf.lmm(FORMULA, lf.scan(mixed, memory="1MB", sorted=False)), in_memory)


@pytest.mark.parametrize("source", ["pattern", "mixed"])
def test_packed_clusters_in_a_file(source, request, in_memory, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "PIECE", 7)
    path = request.getfixturevalue(source)
    scan = lf.scan(path, memory=1 << 20, scratch=tmp_path)
    object.__setattr__(scan, "memory", 100_000)
    fit = lf.lmm(FORMULA.replace("scale(x)", "x"), scan)
    expected = lf.lmm(FORMULA.replace("scale(x)", "x"), rows())
    assert_same(fit, expected)
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_allclose(
        fit.random_effects_cov[:50], expected.random_effects_cov[:50], rtol=1e-6
    )
    fit.random_effects_to(tmp_path / "effects.parquet")
    written = pd.read_parquet(tmp_path / "effects.parquet").set_index("id").sort_index()
    np.testing.assert_array_equal(written, fit.random_effects)
    del fit
    assert [one.name for one in tmp_path.iterdir()] == ["effects.parquet"]


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ 0 + arm + t + (1 | id)",
        "y ~ C(k) + t + (1 | id)",
        "y ~ poly(t, 2) + center(x) + (0 + t | id)",
        "y ~ bs(t, df=5) + (1 | id) ",
        "y ~ arm + (arm || id)",
        "y ~ log(w) + t + I(t**2) + (1 | arm:id)",
        "y ~ . - o - w - arm - k + (1 | id)",
    ],
)
@pytest.mark.parametrize("order", [lambda d: d, scattered])
def test_formulas(formula, order, data, tmp_path):
    d = data.assign(k=np.arange(len(data)) % 4)
    assert_same(lf.lmm(formula, write(order(d), tmp_path)), lf.lmm(formula, d))


@pytest.mark.parametrize("reml", [True, False])
def test_weights_and_offset(data, pattern, reml):
    options = {"weights": "w", "offset": "o", "reml": reml, "D": lf.D.diag()}
    formula = "y ~ t + arm + (t | id)"
    assert_same(lf.lmm(formula, pattern, **options), lf.lmm(formula, data, **options))


@pytest.mark.parametrize("order", [lambda d: d, scattered])
def test_text_ids(data, tmp_path, order):
    d = data.assign(id=["p" + f"{one:05d}" for one in data.id])
    fit = lf.lmm(FORMULA, write(order(d), tmp_path))
    assert_same(fit, lf.lmm(FORMULA, d))
    assert fit.predict(d.head(5), level="conditional").shape == (5,)


def test_ordered_categories_keep_their_order(data, tmp_path):
    arm = pd.Categorical(data.arm, categories=["c", "a", "b", "unused"], ordered=True)
    d = data.assign(arm=arm)
    assert_same(lf.lmm(FORMULA, write(d, tmp_path)), lf.lmm(FORMULA, d))


def test_enums_keep_their_order(data):
    pl = pytest.importorskip("polars")
    d = pl.from_pandas(data).with_columns(pl.col("arm").cast(pl.Enum(["c", "b", "a"])))
    assert_same(lf.lmm(FORMULA, d.lazy()), lf.lmm(FORMULA, d))


def test_groups_together_in_any_order(data, tmp_path):
    order = np.random.default_rng(0).permutation(data.id.unique())
    d = data.set_index("id").loc[order].reset_index()
    pattern = write(d, tmp_path)
    expected = lf.lmm(FORMULA, d)
    assert_same(lf.lmm(FORMULA, lf.scan(pattern, sorted=True)), expected)
    assert_same(lf.lmm(FORMULA, pattern), expected)


def test_what_is_constant_in_the_sample_alone(data, tmp_path, monkeypatch):
    d = data.assign(late=0.0, one=1.0)
    d.loc[d.index[-3] :, "late"] = [1.0, 2.0, 3.0]
    d.loc[d.index[-9], "one"] = 2.0
    formula = "y ~ 0 + one + t + late + (0 + one + t | id)"
    expected = lf.lmm(formula, d)
    monkeypatch.setattr("lmmfast.streaming.files.SAMPLE_ROWS", 50)
    fit = lf.lmm(formula, write(d, tmp_path))
    assert_same(fit, expected)
    assert_bits(lf.lmm(formula, lf.scan(str(tmp_path), batch_rows=71)), fit)


def test_dependent_columns_and_empty_effects(data, tmp_path):
    d = data.assign(twice=2 * data.t, none=0.0)
    pattern = write(d, tmp_path)
    with pytest.warns(lf.RankWarning, match="twice"):
        fit = lf.lmm("y ~ t + twice + (1 | id)", pattern)
    with pytest.warns(lf.RankWarning, match="twice"):
        assert_same(fit, lf.lmm("y ~ t + twice + (1 | id)", d))
    with pytest.warns(lf.RankWarning, match="none"):
        fit = lf.lmm("y ~ t + (t + none | id)", pattern)
    with pytest.warns(lf.RankWarning, match="none"):
        assert_same(fit, lf.lmm("y ~ t + (t + none | id)", d))


@pytest.mark.parametrize("at", [False, True])
def test_a_large_group_and_groups_of_one_row(tmp_path, monkeypatch, at):
    rng = np.random.default_rng(5)
    sizes = np.concatenate([[5000], np.ones(300, dtype=int), rng.integers(1, 5, 300)])
    g = np.repeat(np.arange(len(sizes)), sizes)
    d = pd.DataFrame({"g": g, "t": rng.normal(size=len(g))})
    d["y"] = d.t + rng.normal(size=len(sizes))[g] + rng.normal(size=len(g))
    monkeypatch.setattr(cuts, "CUT_ROWS", 256)
    d["w"], expected = rng.uniform(0.5, 2, len(d)), None
    first = d.g.replace({0: 450}) if at else d.g  # a large group in the middle, among small ones
    d = d.assign(g=first).sort_values("g", kind="stable")
    pattern = write(d, tmp_path)
    for large, batch_rows in ((1 << 21, 1000), (700, 1000), (700, 77), (2, 60)):
        monkeypatch.setattr(cuts, "LARGE_GROUP", large)
        scan = lf.scan(pattern, batch_rows=batch_rows)
        fit = lf.lmm("y ~ t + (t | g)", scan, weights="w")
        assert_same(fit, lf.lmm("y ~ t + (t | g)", d, weights="w"))
        if large == 700:
            expected = expected or fit
            assert_bits(fit, expected)


def test_the_fit_has_no_rows_but_does_the_rest(data, pattern, in_memory, tmp_path):
    fit = lf.lmm(FORMULA, pattern)
    new = data.head(20)
    expected = in_memory.predict(new, level="conditional")
    np.testing.assert_allclose(fit.predict(new, level="conditional"), expected, rtol=1e-7)
    fit.save(tmp_path / "m.lmm")
    loaded = lf.load(tmp_path / "m.lmm")
    for other in (loaded, pickle.loads(pickle.dumps(fit)), copy.copy(fit)):
        np.testing.assert_array_equal(
            other.predict(new, level="conditional"), fit.predict(new, level="conditional")
        )
    assert fit.scorer().one(**new.iloc[0][["id", "t", "arm", "x"]]) == pytest.approx(
        expected.iloc[0] if hasattr(expected, "iloc") else expected[0]
    )
    with pytest.raises(lf.DataError, match="read in pieces and are not held"):
        fit.fitted()
    loaded.random_effects_to(tmp_path / "effects.parquet")
    written = pd.read_parquet(tmp_path / "effects.parquet").set_index("id")
    pd.testing.assert_frame_equal(written, fit.random_effects)


def test_rows_can_be_appended(data, tmp_path):
    half = data.id < data.id.median()
    formula = "y ~ t + arm + (t | id)"
    fit = lf.lmm(formula, write(data[half], tmp_path)).append(data[~half])
    expected = lf.lmm(formula, data)
    assert np.abs((fit.params - expected.params) / expected.bse).max() < 1e-8
    assert fit.llf == pytest.approx(expected.llf, rel=1e-11)


def test_learning_from_a_sample(data, pattern, in_memory):
    fit = lf.lmm(FORMULA, lf.scan(pattern, learn="sample"))
    assert fit.llf == pytest.approx(in_memory.llf, abs=1)
    assert fit.params["t"] == pytest.approx(in_memory.params["t"], rel=1e-6)
