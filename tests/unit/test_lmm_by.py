"""lmm_by: one model for each segment gives what lmm gives on the segment's rows."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import lmmfast as lf
from lmmfast.batch import by_fit

SLOPE = "y ~ t + x + (t | g)"


def random_data(n_segments: int = 6, m: int = 12, n_i: int = 5, seed: int = 1) -> pd.DataFrame:
    """Segments 10, 11, …; the same group labels in all of them."""
    rng = np.random.default_rng(seed)
    n = n_segments * m * n_i
    cluster = np.repeat(np.arange(n_segments * m), n_i)
    t = np.tile(np.arange(float(n_i)), n_segments * m)
    x = rng.normal(size=n)
    b = rng.normal(size=(n_segments * m, 2)) @ np.array([[1.0, 0.3], [0.0, 0.6]])
    y = 1 + 0.5 * t - x + b[cluster, 0] + b[cluster, 1] * t + rng.normal(size=n)
    f = np.array(["a", "b", "c"])[rng.integers(3, size=n)]
    return pd.DataFrame(
        {"y": y, "t": t, "x": x, "f": f, "g": cluster % m, "segment": 10 + cluster // m}
    )


def shuffled(data: pd.DataFrame, seed: int = 2) -> pd.DataFrame:
    return data.sample(frac=1, random_state=seed).reset_index(drop=True)


def check(
    data: pd.DataFrame, by: Any = "segment", formula: str = SLOPE, n_alone: int = 0, **options: Any
) -> lf.LMMByResult:
    """Compare with lmm on each segment; `n_alone` of them are expected not to be for the core."""
    alone = []
    fit_alone = by_fit.SegmentFitter._fit_alone

    def noted(self: Any, segment: int, records: Any) -> None:
        alone.append(segment)
        fit_alone(self, segment, records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_fit.SegmentFitter, "_fit_alone", noted)
        many = lf.lmm_by(formula, data, by, **options)
    assert len(alone) == n_alone
    frame = data.dropna(subset=by)
    labels = []
    for label, part in frame.groupby(by, observed=True):
        labels.append(label)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = lf.lmm(formula, part, **options)
        compare(many, label, one)
    assert many.segments.tolist() == labels and len(many) == len(labels)
    return many


def compare(many: lf.LMMByResult, label: Any, one: lf.LMMResult) -> None:
    np.testing.assert_allclose(many.llf[label], one.llf, rtol=1e-10)
    params, bse = many.params.loc[label].dropna(), many.bse.loc[label].dropna()
    assert list(params.index) == list(bse.index) and set(params.index) == set(one.x_names)
    assert np.abs((params - one.params) / one.bse).max() < 1e-7
    np.testing.assert_allclose(bse[one.x_names], one.bse, rtol=1e-6)
    theta = many.theta.loc[label].dropna()[one.theta_names]
    np.testing.assert_allclose(theta, one.theta, rtol=1e-5, atol=1e-6 * one.theta.abs().max())
    assert (many.nobs[label], many.ngroups[label]) == (one.nobs, one.ngroups)
    assert bool(many.converged[label]) and many.status[label] == one.certificate.status
    assert many.evaluations[label] > 0


def test_each_segment_is_a_fit_of_its_own():
    many = check(random_data())
    assert not len(many.failed) and not len(many.warnings) and many.n_dropped == 0


@pytest.mark.parametrize("reml", [True, False])
def test_rows_in_any_order(reml):
    check(shuffled(random_data()), reml=reml)


def test_contiguous_but_unsorted_segments_and_groups():
    data = random_data()
    check(data.iloc[::-1].reset_index(drop=True))


@pytest.mark.parametrize("kind", ["text", "category", "time", "float", "bool"])
def test_types_of_segments(kind):
    data = shuffled(random_data(2 if kind == "bool" else 4))
    segment = data["segment"]
    data["segment"] = {
        "text": "s" + segment.astype(str),
        "category": pd.Categorical("s" + segment.astype(str), ["s13", "s11", "s12", "s10"]),
        "time": pd.to_datetime("2020-01-01") + pd.to_timedelta(segment, unit="D"),
        "float": segment / 3,
        "bool": segment == 10,
    }[kind]
    many = check(data)
    assert many.segments.name == "segment"


def test_several_columns():
    data = random_data()
    data["a"], data["b"] = data["segment"] % 2, "b" + (data["segment"] // 2).astype(str)
    many = check(shuffled(data), by=["a", "b"])
    assert many.segments.names == ["a", "b"]
    assert list(many.tidy().columns[:3]) == ["a", "b", "term"]
    assert many[1, "b5"].nobs == 60


def test_other_tables():
    data = shuffled(random_data())
    data["segment"] = "s" + data["segment"].astype(str)
    expected = lf.lmm_by(SLOPE, data, "segment")
    mapping = {name: data[name].to_numpy() for name in data}
    for table in (pl.DataFrame(mapping), pl.DataFrame(mapping).to_arrow(), mapping):
        got = lf.lmm_by(SLOPE, table, "segment")
        pd.testing.assert_frame_equal(
            got.params, expected.params, rtol=1e-12, check_index_type=False
        )
        assert got.segments.tolist() == expected.segments.tolist()


def test_options():
    data = shuffled(random_data())
    rng = np.random.default_rng(3)
    data["w"], data["o"] = rng.uniform(0.5, 2, len(data)), 10 * rng.normal(size=len(data))
    many = check(data, weights="w", offset="o", D=lf.D.diag())
    assert list(many.theta.columns) == ["var(Intercept|g)", "var(t|g)", "var(Residual)"]
    arrays = lf.lmm_by(
        SLOPE, data, "segment", weights=data["w"], offset=data["o"].to_numpy(), D=lf.D.diag()
    )
    pd.testing.assert_frame_equal(arrays.params, many.params)
    with pytest.raises(lf.DataError, match="paired by position"):
        lf.lmm_by(SLOPE, data, "segment", weights=data["w"][::-1])
    with pytest.raises(lf.DataError, match="weights"):
        lf.lmm_by(SLOPE, data, "segment", weights=np.ones(3))


def test_factors_and_expressions():
    check(shuffled(random_data()), formula="y ~ f * x + I(x**2) + exp(t / 9) + (1 | g)")


def test_groups_of_combinations():
    data = random_data()
    data["h"] = data["t"] > 2
    check(shuffled(data), formula="y ~ t + (1 | g:h)")


def test_missing_values():
    data = shuffled(random_data())
    data.loc[[3, 50], "y"], data.loc[[7, 100], "x"] = np.nan, np.nan
    data.loc[9, "segment"] = np.nan
    many = check(data)
    assert many.n_dropped == 5
    assert many.missing_counts == {"segment": 1, "x": 2, "y": 2}
    with pytest.raises(lf.DataError, match="'segment' \\(1\\)"):
        lf.lmm_by(SLOPE, data, "segment", missing="raise")


def test_missing_values_refused_are_the_segments_own():
    data = random_data()
    data.loc[data.index[data["segment"] == 12][4], "y"] = np.nan
    with pytest.warns(lf.LmmWarning, match="1 of 6 segments have no fit"):
        many = lf.lmm_by(SLOPE, data, "segment", missing="raise")
    assert list(many.failed.index) == [12] and "missing values in 'y' (1)" in many.failed[12]


@pytest.mark.parametrize(
    ("formula", "n_alone"),
    [
        ("y ~ scale(x) + (t | g)", 0),
        ("y ~ scale(scale(x)) + (t | g)", 4),
        ("y ~ I(x - x.mean()) + (t | g)", 4),
        ("y ~ C(k) + (1 | g)", 4),
        ("y ~ bs(x, df=4) + (1 | g)", 4),
    ],
)
def test_what_is_learnt_is_learnt_from_the_segment(formula, n_alone):
    data = shuffled(random_data(4))
    data["k"] = data["segment"] + (data["x"] > 0)
    data.loc[[3, 50], "y"], data.loc[[7, 100], "x"] = np.nan, np.nan
    check(data, formula=formula, n_alone=n_alone)


def test_a_level_that_a_segment_lacks():
    data = random_data()
    data.loc[(data["segment"] == 11) & (data["f"] == "a"), "f"] = "b"
    many = check(data, formula="y ~ f + (1 | g)", n_alone=1)
    assert list(many.params.columns) == ["Intercept", "f[T.b]", "f[T.c]"]
    assert np.isnan(many.params.loc[11, "f[T.b]"])
    check(data, formula="y ~ x + identity(1 + f | g)", n_alone=1)


def test_dependent_columns():
    data = random_data()
    data["z"] = np.where(data["segment"] == 14, 2 * data["x"] + 1, data["t"] ** 2)
    with pytest.warns(lf.LmmWarning, match=r"1 of 6 segments have warnings .*14: dropped .*: z"):
        many = check(data, formula="y ~ x + z + (1 | g)", n_alone=1)
    assert np.isnan(many.params.loc[14, "z"]) and "dropped" in many.warnings[14]
    with pytest.warns(lf.LmmWarning, match="have no fit"):
        many = lf.lmm_by("y ~ x + z + (1 | g)", data, "segment", rank_deficient="raise")
    assert list(many.failed.index) == [14] and not many.converged[14]


def test_failures_stay_where_they_are():
    data = random_data(9)
    segment = data["segment"]
    data["u"] = 1.0 + np.arange(len(data)) % 7
    data.loc[segment == 11, "y"] = 3.0  # constant
    data.loc[segment == 12, "g"] = 0  # a single group
    data.loc[data.index[segment == 13][4], "x"] = np.inf
    data.loc[data.index[segment == 14][2], "u"] = -1.0  # has no logarithm
    data.loc[segment == 15, "y"] = np.nan
    data.loc[segment == 16, "t"] = 1.0
    formula = "y ~ t + x + log(u) + (t | g)"
    with pytest.warns(lf.LmmWarning) as caught:
        many = lf.lmm_by(formula, shuffled(data), "segment")
    (warning,) = [w for w in caught if issubclass(w.category, lf.LmmWarning)]
    assert "6 of 9 segments have no fit (.failed; 11: the response 'y' is constant" in str(
        warning.message
    )
    assert warning.filename == __file__
    assert list(many.failed.index) == [11, 12, 13, 14, 15, 16]
    for label, text in {
        11: "constant",
        12: "single group",
        13: "'x' is infinite",
        14: "log(u)",
        15: "all 60 rows",
        16: "tell",
    }.items():
        assert text in many.failed[label] and many.status[label] == many.failed[label]
        assert np.isnan(many.llf[label]) and many.params.loc[label].isna().all()
    for label in (10, 17, 18):
        compare(many, label, lf.lmm(formula, data[segment == label]))
    assert "3 converged" in repr(many) and "6 failed" in repr(many)
    assert set(many.tidy()["segment"]) == {10, 17, 18}
    with pytest.raises(lf.NotIdentifiableError, match="single group"):
        many.fit(12)


def test_errors_of_the_whole_are_raised():
    data = random_data()
    data["name"] = "n"
    with pytest.raises(lf.DataError, match=r"by='segmnt' is not a column.*'segment'"):
        lf.lmm_by(SLOPE, data, "segmnt")
    with pytest.raises(lf.FormulaError, match="'zz' is not a column"):
        lf.lmm_by("y ~ zz + (1 | g)", data, "segment")
    with pytest.raises(lf.DataError, match="text"):
        lf.lmm_by("name ~ t + (1 | g)", data, "segment")
    with pytest.raises(lf.FormulaError, match="D gives 2"):
        lf.lmm_by(SLOPE, data, "segment", D=[lf.D.diag(), lf.D.diag()])
    with pytest.raises(ValueError, match="missing="):
        lf.lmm_by(SLOPE, data, "segment", missing="keep")
    with pytest.raises(lf.DataError, match="names no column"):
        lf.lmm_by(SLOPE, data, [])


def test_boundary_and_iteration_limit():
    data = random_data()
    noise = np.random.default_rng(5).normal(size=len(data))
    data["y"] = np.where(data["segment"] == 12, noise, data["y"])
    many = check(data)
    assert many.status[12].startswith("converged on the boundary: ")
    with pytest.warns(lf.LmmWarning, match="6 of 6 segments did not converge"):
        hurried = lf.lmm_by(SLOPE, data, "segment", max_iter=2)
    assert not hurried.converged.any() and not len(hurried.failed)
    assert hurried.status[10].startswith("not converged: ") and hurried.llf.notna().all()


def test_large_segments_go_the_general_way():
    data = random_data(2, m=900)
    data = data[(data["segment"] == 10) | (data["g"] < 30)]
    check(data, n_alone=1)


def test_columns_in_pieces(monkeypatch):
    data = shuffled(random_data())
    whole = lf.lmm_by(SLOPE, data, "segment")
    monkeypatch.setattr(by_fit, "CHUNK_ROWS", 130)
    pieces = lf.lmm_by(SLOPE, data, "segment")
    pd.testing.assert_frame_equal(whole.params, pieces.params, check_exact=True)


def test_threads_do_not_change_a_bit():
    data = shuffled(random_data(150, m=8))
    one = lf.lmm_by(SLOPE, data, "segment", n_jobs=1)
    for n_jobs in (2, 5):
        other = lf.lmm_by(SLOPE, data, "segment", n_jobs=n_jobs)
        for name in ("params", "bse", "theta"):
            pd.testing.assert_frame_equal(
                getattr(one, name), getattr(other, name), check_exact=True
            )
        pd.testing.assert_series_equal(one.llf, other.llf, check_exact=True)


def test_dot_leaves_the_segments_out():
    data = random_data(3).drop(columns="f")
    many = lf.lmm_by("y ~ . + (1 | g)", data, "segment")
    assert list(many.params.columns) == ["Intercept", "t", "x"]


def test_one_segment_in_full():
    data = shuffled(random_data())
    many = lf.lmm_by(SLOPE, data, "segment")
    part = data[data["segment"] == 13]
    fit = many[13]
    assert fit.llf == pytest.approx(many.llf[13], rel=1e-12)
    assert fit.fittedvalues.index.equals(part.index)
    columns = list(fit.tidy().columns)
    tidy = many.tidy(alpha=0.1)
    assert list(tidy.columns) == ["segment", "term", *columns]
    here = tidy[tidy["segment"] == 13].set_index("term")[columns]
    normal = fit.inference("normal").tidy(alpha=0.1)  # segments have no degrees of freedom
    np.testing.assert_allclose(here, normal, rtol=1e-6)
    with pytest.raises(KeyError, match="99 is no segment of 'segment'"):
        many[99]


def test_pickle():
    many = lf.lmm_by(SLOPE, random_data(), "segment")
    saved = pickle.loads(pickle.dumps(many))
    pd.testing.assert_frame_equal(saved.tidy(), many.tidy())
    assert repr(saved) == repr(many)
    with pytest.raises(lf.DataError, match="needs the data"):
        saved.fit(10)


@pytest.mark.parametrize(
    ("formula", "alone"),
    [
        (SLOPE, 0),
        ("y ~ f * scale(x) + log(t + 1) + (center(t) | g)", 0),
        ("y ~ I(scale(x, center=False)**2) + standardize(log(x + 9)) + (1 | g)", 0),
        ("y ~ C(k) + (1 | g)", 4),
        ("y ~ bs(x, df=4) + (1 | g)", 4),
        ("y ~ t + (1 | g) + (1 | k)", 4),
    ],
)
def test_new_rows_go_to_the_fit_of_their_segment(formula, alone, tmp_path):
    data = shuffled(random_data(4))
    data["k"] = data["segment"] * 7 + np.arange(len(data)) % 5
    many = lf.lmm_by(formula, data, "segment")
    assert len(many._records.models.alone) == alone
    many.save(tmp_path / "by.lmm")
    saved = lf.load(tmp_path / "by.lmm")
    new = data[::3]
    for level in ("population", "conditional"):
        found = many.predict(new, level)
        assert found.index.equals(new.index)
        np.testing.assert_array_equal(saved.predict(new, level), found)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(many)).predict(new, level), found)
        for label, part in data.groupby("segment"):
            rows = new[new["segment"] == label]
            expected = lf.lmm(formula, part).predict(rows, level)
            np.testing.assert_allclose(found[rows.index], expected, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(many.scorer(label, level)(rows), expected, rtol=1e-9)
    assert many[12] is many[12]


def test_what_a_segment_learns_costs_little():
    data = random_data(9)
    data.loc[data["segment"] == 12, "x"] = 2.0  # constant: scale(x) has no value
    with pytest.warns(lf.LmmWarning, match="1 of 9 segments have no fit"):
        many = lf.lmm_by("y ~ t + scale(x) + (1 | g)", data, "segment")
    assert list(many.failed.index) == [12] and "scale(x)" in many.failed[12]
    assert len(many._records.models.shared) == 1 and not many._records.models.alone


def test_rows_without_a_segment_or_group():
    data = random_data(4)
    data.loc[data["segment"] == 11, "y"] = 3.0
    with pytest.warns(lf.LmmWarning, match="no fit"):
        many = lf.lmm_by("y ~ scale(t) + (1 | g)", data, "segment")
    new = pd.DataFrame({"segment": [10, 99, 11, np.nan, 13, 10], "t": [1.0, 1, 1, 1, np.nan, 2]})
    new["g"] = [0, 0, 0, 0, 0, 77]
    with pytest.raises(lf.DataError, match=r"2 of 6 rows .* row 1 .*none of the 4 fitted"):
        many.predict(new)
    with pytest.raises(lf.DataError, match=r"row 0 .*segment 11, which has no fit .*constant"):
        many.predict(new.iloc[[2]])
    with pytest.warns(lf.NewGroupsWarning, match="1 of 6 rows"):
        found = many.predict(new, "conditional", unknown_segments="missing")
    np.testing.assert_array_equal(np.isnan(found), [False, True, True, True, True, False])
    assert found[5] == pytest.approx(many.predict(new, unknown_segments="missing")[5], rel=1e-12)
    left = many.predict(new, "conditional", "missing", unknown_segments="missing")
    assert np.isnan(left[5]) and left[0] == found[0]
    with pytest.raises(lf.DataError, match="first in row 5"):
        many.predict(new, "conditional", "error", unknown_segments="missing")
    with pytest.raises(lf.DataError, match="no column 'segment'"):
        many.predict(new.drop(columns="segment"))
    with pytest.raises(KeyError, match="11 has no fit"):
        many.scorer(11)


def test_predictions_of_segments_of_several_columns():
    data = shuffled(random_data(6))
    data["a"], data["b"] = np.where(data["segment"] % 2, "odd", "even"), data["segment"] // 2
    many = lf.lmm_by(SLOPE, data, ["a", "b"])
    single = lf.lmm_by(SLOPE, data, "segment")
    np.testing.assert_array_equal(
        many.predict(data, "conditional"), single.predict(data, "conditional")
    )
    polars = many.predict(pl.from_pandas(data), "conditional")
    np.testing.assert_array_equal(polars, many.predict(data, "conditional"))
