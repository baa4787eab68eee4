"""`fit.save` and `lmmfast.load`: every kind of fit comes back to the bit, nothing is run."""

import datetime
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.data.text_labels import TextLabels
from lmmfast.persist.files import read_document
from lmmfast.persist.labels import (
    index_from_plain,
    index_to_plain,
    labels_from_plain,
    labels_to_plain,
)
from lmmfast.persist.plain import from_plain, to_plain

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

from models import data

DATA = data()
FORMULAS = {
    "one factor": ("y ~ t * arm + (t | patient)", {}),
    "weights, offset": ("y ~ t + (1 | patient)", {"weights": "w", "offset": "x"}),
    "ML": ("y ~ t + (0 + t | patient)", {"reml": False}),
    "diag": ("y ~ t + diag(t | patient)", {}),
    "cs": ("y ~ t + cs(t | patient)", {}),
    "identity": ("y ~ t + identity(t | patient)", {}),
    "two terms": ("y ~ t + (1 | patient) + (0 + t | patient)", {}),
    "combined": ("y ~ t + (1 | site:patient)", {}),
    "nested": ("y ~ t + (1 | site/patient)", {}),
    "crossed": ("y ~ t + (t | patient) + (1 | rater)", {}),
    "dropped": ("y ~ t + I(2 * t) + x + (1 | patient)", {}),
    "empty effect": ("y ~ t + (1 + zero | patient)", {}),
    "splines": ("y ~ bs(x, df=4) + cr(t, df=3, constraints='center') + (1 | patient)", {}),
    "moments": ("y ~ scale(x) + center(t) + poly(x, 3) + (scale(t) | patient)", {}),
    "codings": (
        "y ~ C(arm, contr.helmert) * C(rater) + C(site, Treatment('west')) + (1 | patient)",
        {},
    ),
    "more codings": (
        "y ~ C(arm, contr.sum) + C(rater, contr.poly) + C(site, contr.diff) + (1 | patient)",
        {},
    ),
    "given coding": ("y ~ C(arm, contr.custom([[1, 0], [0, 1], [1, 1]])) + (1 | patient)", {}),
    "levels": ("y ~ C(arm, levels=['drug', 'placebo', 'dose:high']) + (1 | patient)", {}),
    "comparison": ("log(y + 40) ~ C(t > 3) + dummy(arm, 'drug') + (1 | patient)", {}),
    "category": ("y ~ kind + (1 | patient)", {}),
    "numbered": ("y ~ C(rater):x + numbered + (1 | patient)", {}),
    "values": ("y ~ I(t - start) + (1 | patient)", {"context": {"start": 2.5}}),
    "AR1": ("y ~ t + (1 | patient)", {"residual": lf.AR1("t")}),
    "OU": ("y ~ t", {"residual": lf.OU("t", nugget=True), "groups": "patient"}),
    "OU by": ("y ~ t + (1 | patient)", {"residual": lf.OU("t", by="arm")}),
    "toeplitz": ("y ~ t", {"residual": lf.Toeplitz("t", bands=2), "groups": "patient"}),
    "unstructured": ("y ~ t", {"residual": lf.Unstructured("t"), "groups": "patient"}),
    "spatial": ("y ~ t", {"residual": lf.SpatialMatern("x", "t"), "groups": "patient"}),
    "product": (
        "y ~ t + (1 | patient)",
        {"residual": lf.AR1("t") * lf.ByGroup("site") * lf.VarPower("w")},
    ),
    "nested AR1": ("y ~ t + (1 | site/patient)", {"residual": lf.AR1("t")}),
    "redundant": (
        "y ~ t + (1 | patient)",
        {"residual": lf.CompoundSymmetry(), "identifiable": "warn"},
    ),
    "robust": ("y ~ t + (1 | patient)", {"vcov": "CR2"}),
    "counted": ("y ~ t + arm + (1 | patient)", {"ddf": "between-within"}),
    "kenward-roger": ("y ~ t + arm + (t | patient)", {"ddf": "kenward-roger"}),
    "normal": ("y ~ t + arm + (t | patient)", {"ddf": "normal"}),
}


@pytest.fixture(scope="module")
def frame():
    d = DATA.assign(zero=0.0, kind=pd.Categorical(DATA["site"], ["west", "süd", "nörd"]))
    d["numbered"] = pd.Categorical(DATA["rater"] % 3, [2, 0, 1])
    return d


@pytest.fixture(params=FORMULAS)
def fit(request, frame):
    formula, options = FORMULAS[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dropped columns, boundaries: they are saved, too
        return lf.lmm(formula, frame, **options)


def saved(fit, tmp_path, **options):
    fit.save(tmp_path / "m.lmm")
    return lf.load(tmp_path / "m.lmm", **options)


@pytest.mark.filterwarnings("ignore::lmmfast.errors.NewDataWarning")
def test_every_bit_comes_back(fit, frame, tmp_path):
    again = saved(fit, tmp_path)
    assert type(again) is type(fit)
    assert str(again.summary()) == str(fit.summary())
    assert repr(again) == repr(fit)
    for name in ("params", "bse", "theta", "theta_se", "df", "pvalues"):
        pd.testing.assert_series_equal(getattr(again, name), getattr(fit, name), check_exact=True)
    for name in ("tidy", "variance_table", "cov_params", "variance_partition"):
        ours, theirs = getattr(again, name)(), getattr(fit, name)()
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    # A process of the residuals takes the rows: test_processes_predicted.
    own = {"residual": "none"} if "nugget" in repr(fit.residual) else {}
    for level in ("population", "conditional"):
        ours, theirs = (one.predict(frame, level=level, **own) for one in (again, fit))
        pd.testing.assert_series_equal(ours, theirs, check_exact=True)
    row = frame.iloc[7].to_dict()
    assert again.scorer(**own).one(**row) == fit.scorer(**own).one(**row)
    for key in ("nobs", "ngroups", "group_sizes", "nested_in", "missing_counts", "certificate"):
        assert getattr(again, key) == getattr(fit, key), key
    assert (again.aic, again.bic, again.n_params) == (fit.aic, fit.bic, fit.n_params)
    assert again.dropped_columns == fit.dropped_columns
    assert again.dropped_effects == fit.dropped_effects
    assert str(again.varcorr) == str(fit.varcorr)
    assert [entry["llf"] for entry in again.trace] == [entry["llf"] for entry in fit.trace]
    assert repr(again.residual) == repr(fit.residual)


def test_effects_and_labels(fit, tmp_path):
    again = saved(fit, tmp_path)
    ours, theirs = again.random_effects, fit.random_effects
    if not isinstance(theirs, dict):
        ours, theirs = {"": ours}, {"": theirs}
    for name in theirs:
        pd.testing.assert_frame_equal(ours[name], theirs[name], check_exact=True)


def test_the_same_bytes(fit, tmp_path):
    """Of the fit, of what was loaded, and of what was pickled."""
    again = saved(fit, tmp_path)
    again.save(tmp_path / "again.lmm")
    pickle.loads(pickle.dumps(fit)).save(tmp_path / "pickled.lmm")
    contents = (tmp_path / "m.lmm").read_bytes()
    assert (tmp_path / "again.lmm").read_bytes() == contents
    assert (tmp_path / "pickled.lmm").read_bytes() == contents


def test_what_takes_rows_is_refused(fit, tmp_path):
    again = saved(fit, tmp_path)
    for attempt in (
        lambda: again.fittedvalues,
        lambda: again.resid,
        lambda: again.random_effects_cov,
        lambda: again.refit([1.0]),
        lambda: again.inference("between-within").df,
        lambda: again.inference(vcov="CR0"),
    ):
        with pytest.raises(lf.DataError, match="data"):
            attempt()


def test_tests_after_loading(frame, tmp_path):
    fit = lf.lmm("y ~ t + arm + x + (1 | patient)", frame)
    again = saved(fit, tmp_path)
    pd.testing.assert_frame_equal(again.anova(), fit.anova(), check_exact=True)
    for method in ("satterthwaite", "kenward-roger", "residual", "normal"):
        ours, theirs = (one.inference(method).test("t = 0, x = 1") for one in (again, fit))
        assert ours.p_value == theirs.p_value
    robust = saved(fit.inference(vcov="CR2"), tmp_path)
    assert robust.test("t = 0").p_value == pytest.approx(robust.pvalues["t"], rel=1e-12)
    with pytest.raises(lf.DataError, match=r"robust tests .* need the data"):
        robust.test("t = 0, x = 0")
    counted = fit.inference("between-within")
    assert saved(counted, tmp_path).test("t = 0, x = 0").p_value == counted.test("t=0, x=0").p_value


def test_fits_can_be_compared(frame, tmp_path):
    small = lf.lmm("y ~ t + (1 | patient)", frame, reml=False)
    large = lf.lmm("y ~ t + x + (1 | patient)", frame, reml=False)
    expected = lf.compare(small, large)
    found = lf.compare(saved(small, tmp_path), saved(large, tmp_path))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_models_of_arrays(tmp_path):
    X = np.column_stack([np.ones(192), DATA["t"], DATA["x"]])
    for groups, Z in (
        (DATA["patient"].to_numpy(), X[:, :2]),
        (DATA["arm"].to_numpy(), None),
        ({"patient": DATA["patient"], "rater": DATA["rater"]}, None),
    ):
        fit = lf.fit(DATA["y"].to_numpy(), X, groups, Z=Z)
        again = saved(fit, tmp_path)
        np.testing.assert_array_equal(
            again.predict(X, level="conditional", groups=groups, Z=Z),
            fit.predict(X, level="conditional", groups=groups, Z=Z),
        )
        assert str(again.summary()) == str(fit.summary())


def test_without_effects(frame, tmp_path):
    for formula in ("y ~ t + (1 | patient)", "y ~ t + (1 | site/patient)"):
        fit = lf.lmm(formula, frame)
        fit.save(tmp_path / "bare.lmm", effects=False)
        again = lf.load(tmp_path / "bare.lmm")
        assert str(again.summary()) == str(fit.summary())
        pd.testing.assert_series_equal(again.predict(frame), fit.predict(frame), check_exact=True)
        with pytest.raises(lf.DataError, match="random effects need the data"):
            again.predict(frame, level="conditional")
        again.save(tmp_path / "again.lmm", effects=False)
        assert (tmp_path / "again.lmm").read_bytes() == (tmp_path / "bare.lmm").read_bytes()


def test_fits_with_rows_appended(frame, tmp_path):
    fit = lf.lmm("y ~ t + (t | patient)", frame[:96]).append(frame[96:])
    again = saved(fit, tmp_path)
    assert str(again.summary()) == str(fit.summary())
    np.testing.assert_array_equal(
        again.predict(frame, level="conditional"), fit.predict(frame, level="conditional")
    )
    with pytest.raises(lf.DataError):
        again.append(frame[:8])


def test_many_responses(frame, tmp_path):
    X = np.column_stack([np.ones(192), DATA["t"]])
    with pytest.warns(lf.ConvergenceWarning):
        fits = lf.fit_many(DATA[["y", "y2"]].assign(constant=1.0), X, DATA["patient"], Z=X)
    again = saved(fits, tmp_path)
    pd.testing.assert_frame_equal(again.to_frame(), fits.to_frame(), check_exact=True)
    pd.testing.assert_frame_equal(again.tidy(), fits.tidy(), check_exact=True)
    assert repr(again["y2"]) == repr(fits["y2"])
    assert str(again["y"].summary()) == str(fits["y"].summary())


@pytest.mark.parametrize("by", ["site", ["site", "arm"], "rater"])
def test_fits_by_segment(frame, by, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = lf.lmm_by("y ~ t + (1 | patient)", frame, by=by)
    again = saved(result, tmp_path)
    pd.testing.assert_frame_equal(again.tidy(), result.tidy(), check_exact=True)
    pd.testing.assert_frame_equal(again.theta, result.theta, check_exact=True)
    for name in ("llf", "nobs", "ngroups", "converged", "status", "failed", "warnings"):
        pd.testing.assert_series_equal(getattr(again, name), getattr(result, name))
    assert repr(again) == repr(result)
    assert list(again) == list(result)
    with pytest.raises(lf.DataError, match="needs the data"):
        again[next(iter(again))]


def double(x):
    return 2 * x


def test_functions_are_given_again(frame, tmp_path):
    fit = lf.lmm("y ~ double(t) + (1 | patient)", frame, context={"double": double})
    fit.save(tmp_path / "m.lmm")
    with pytest.raises(lf.DataError, match=r"pass context=\{'double': double\}"):
        lf.load(tmp_path / "m.lmm")
    again = lf.load(tmp_path / "m.lmm", context={"double": double})
    with pytest.warns(lf.NewDataWarning):
        found = again.predict(frame)
    with pytest.warns(lf.NewDataWarning):
        np.testing.assert_array_equal(found, fit.predict(frame))


@pytest.mark.parametrize("expression", ["I(t - t.mean())", "np.log1p(t.clip(0))", "np.cumsum(t)"])
def test_formulas_that_could_run_any_code(frame, tmp_path, expression):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lf.lmm(f"y ~ {expression} + (1 | patient)", frame)
    fit.save(tmp_path / "m.lmm")
    with pytest.raises(lf.DataError, match=r"could run any code.*trust=True"):
        lf.load(tmp_path / "m.lmm")
    again = lf.load(tmp_path / "m.lmm", trust=True)
    assert again.llf == fit.llf


def cauchy(psi, values):
    a = ((values - values.T) / np.exp(psi[0])) ** 2
    return 1 / (1 + a), (2 * a / (1 + a) ** 2)[None]


def test_correlations_of_your_own(frame, tmp_path):
    own = lf.CustomCorrelation("t", function=cauchy, start=[0.0], names=["log_range"])
    fit = lf.lmm("y ~ t", frame, groups="patient", residual=own)
    again = saved(fit, tmp_path)
    assert str(again.summary()) == str(fit.summary())
    assert b"cauchy(" not in (tmp_path / "m.lmm").read_bytes()


def test_names_that_look_like_marks(frame, tmp_path):
    odd = frame.rename(columns={"x": "$array", "t": "$float", "patient": "../g"}).copy()
    odd.loc[3, "$array"] = np.nan
    fit = lf.lmm("y ~ `$array` + `$float` + (1 | `../g`)", odd)
    again = saved(fit, tmp_path)
    assert again.missing_counts == fit.missing_counts == {"$array": 1}
    pd.testing.assert_series_equal(
        again.predict(odd, level="conditional"), fit.predict(odd, level="conditional")
    )


def test_labels_that_cannot_be_saved(frame, tmp_path):
    periods = pd.period_range("2020", periods=24, freq="M")[np.repeat(np.arange(24), 8)]
    fit = lf.lmm("y ~ t + (1 | month)", frame.assign(month=periods))
    with pytest.raises(lf.DataError, match="labels of 'month' are of type Period"):
        fit.save(tmp_path / "m.lmm")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1, 2]),
        np.array([0.5, 1.5]),
        np.array([True, False]),
        np.array(["b", "", "ä", "日本"], dtype=object),
        np.array([], dtype=object),
        np.array(["2020-01-01", "2021-01-01"], dtype="M8[ns]"),
        np.array([datetime.date(2020, 1, 2), datetime.date(1999, 1, 1)], dtype=object),
    ],
)
def test_labels(labels):
    again = labels_from_plain(labels_to_plain(labels, "labels"))
    np.testing.assert_array_equal(np.asarray(again), labels)
    assert [again[k] for k in range(len(again))] == list(labels)


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["a", "b"], dtype=object, name="g"),
        pd.Index(["a", "b"]),
        pd.Index([2, 0, 1]),
        pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", "y"]),
    ],
)
def test_indexes(index):
    pd.testing.assert_index_equal(index_from_plain(index_to_plain(index, "levels")), index)


def test_text_labels():
    texts = ["a", "bb", "ccc"]
    labels = TextLabels.of(texts)
    assert (len(labels), labels[-1], labels.ascends) == (3, "ccc", True)
    assert labels[np.array([2, 0])].tolist() == ["ccc", "a"]
    assert not TextLabels.of(["b", "a"]).ascends
    assert list(pickle.loads(pickle.dumps(labels))) == texts
    with pytest.raises(IndexError):
        labels[3]


@pytest.mark.parametrize(
    "value", [None, True, 1.5, "x", [1, (2, "a")], {"a": {0: 1.0, "$b": ()}}, {1: {2: [None]}}]
)
def test_plain_values(value):
    assert from_plain(to_plain(value, "it")) == value
    with pytest.raises(lf.DataError, match="it holds a value of type set"):
        to_plain([value, {1, 2}], "it")


def test_groups_of_text_are_found_in_the_file(frame, tmp_path):
    rng = np.random.default_rng(4)
    names = np.repeat([f"user {k}" for k in rng.permutation(5000)], 2)
    d = pd.DataFrame({"y": rng.normal(size=10_000) + np.repeat(rng.normal(size=5000), 2)})
    d["name"] = names
    fit = lf.lmm("y ~ 1 + (1 | name)", d)
    again = saved(fit, tmp_path)
    few, many = d[::3001], d
    for rows in (few, many):
        np.testing.assert_array_equal(
            again.predict(rows, level="conditional"), fit.predict(rows, level="conditional")
        )
    assert again.scorer().one(name="user 77") == fit.scorer().one(name="user 77")
    assert again.scorer().one(name="user") == fit.params.iloc[0]
    with pytest.raises(lf.DataError, match="are numbers here"):
        again.scorer().one(name=77)
    scorer = pickle.loads(pickle.dumps(again.scorer()))
    assert scorer.one(name="user 77") == fit.scorer().one(name="user 77")


def test_what_is_loaded_is_mapped_and_cannot_be_written(frame, tmp_path):
    fit = lf.lmm("y ~ t + (1 | patient)", frame)
    again = saved(fit, tmp_path)
    assert not again._effects.flags.writeable
    document = read_document(tmp_path / "m.lmm")
    assert document["kind"] == "fit"
    effects = again.random_effects
    effects.iloc[0, 0] = 1e9
    assert again.random_effects.iloc[0, 0] != 1e9


def test_pickles_have_a_version(frame):
    fit = lf.lmm("y ~ t + (1 | patient)", frame)
    state = fit.__getstate__()
    assert state["_state_version"] == 1
    for version in (0, 99):
        with pytest.raises(lf.DataError, match="pickled by another version of lmmfast"):
            fit.__copy__().__setstate__({**state, "_state_version": version})
    assert pickle.loads(pickle.dumps(fit)).llf == fit.llf
    X = np.column_stack([np.ones(192), DATA["t"]])
    many = lf.fit_many(DATA[["y", "y2"]], X, DATA["patient"])
    segments = lf.lmm_by("y ~ t + (1 | patient)", DATA, by="arm")
    for result in (many, segments):
        again = pickle.loads(pickle.dumps(result))
        pd.testing.assert_frame_equal(again.tidy(), result.tidy())
        with pytest.raises(lf.DataError, match="pickled by another version"):
            again.__setstate__({**result.__getstate__(), "_state_version": 0})
