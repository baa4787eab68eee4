"""`fit.scorer`: every bit of `fit.predict`, one row or many, whatever the model."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.errors import NewDataWarning, NewGroupsWarning
from lmmfast.prediction.lookup import GroupLookup

RNG = np.random.default_rng(11)
N = 240
SITES = np.repeat(["north", "so:uth", "e\\ast"], 80)
DATA = pd.DataFrame(
    {
        "t": np.tile(np.arange(8.0), 30),
        "x": RNG.normal(size=N),
        "count": RNG.integers(-3, 9, N),
        "arm": np.tile(np.repeat(["a", "b", "c"], 8), 10),
        "id": np.repeat(RNG.permutation(30) * 7 - 40, 8),
        "name": np.repeat([f"u{k}" for k in RNG.permutation(30)], 8),
        "half": np.repeat(RNG.permutation(30) / 2, 8),
        "site": SITES,
        "patient": np.tile(np.repeat(np.arange(10), 8), 3),
        "item": RNG.integers(0, 6, N),
        "w": RNG.uniform(0.5, 2, N),
        "o": RNG.normal(size=N),
    }
)
DATA["y"] = (
    1 + DATA["t"] + RNG.normal(size=41)[DATA["id"] // 7 + 6] + RNG.normal(size=N) + DATA["o"]
)
MODELS = {
    "int": ("y ~ t + x + (t | id)", {}),
    "text": ("y ~ t + arm + (1 | name)", {}),
    "float": ("y ~ t * arm + (1 | half)", {}),
    "integers": ("y ~ count + x:count + arm:t + (1 | id)", {}),
    "offset": ("y ~ t + (1 | id)", {"offset": "o", "weights": "w"}),
    "combined": ("y ~ t + (1 | site:patient)", {}),
    "nested": ("y ~ t + (1 | site/patient)", {}),
    "crossed": ("y ~ t + (t | id) + (1 | item)", {}),
    "functions": ("y ~ log1p(t) + bs(x, df=4) + (1 | id)", {}),
    "coded": ("y ~ C(count) + (1 | id)", {}),
    "ar1": ("y ~ t + (1 | id)", {"residual": lf.AR1("t")}),
    "no effects": ("y ~ t + arm", {"residual": lf.AR1("t"), "groups": "id"}),
}
LEVELS = ("population", "conditional")


@pytest.fixture(scope="module", params=MODELS)
def fit(request):
    formula, options = MODELS[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # simulated data may leave a variance nothing
        return lf.lmm(formula, DATA, **options)


@pytest.mark.parametrize("level", LEVELS)
def test_every_bit_of_predict(fit, level):
    expected = fit.predict(DATA, level=level)
    score = fit.scorer(level)
    pd.testing.assert_series_equal(score(DATA), expected, check_exact=True)
    rows = DATA.drop(columns=["y", "w"]).to_dict("records")
    assert [score.one(**row) for row in rows[:40]] == expected[:40].to_list()
    assert set(score.columns) <= set(DATA.columns)


def test_types_of_one_row(fit):
    """NumPy's scalars, and integers where the fit had floats."""
    row = {name: DATA[name].iloc[9] for name in DATA}
    want = fit.predict(DATA.iloc[[9]], level="conditional").iloc[0]
    assert fit.scorer().one(**row) == want
    assert fit.scorer().one(**{**row, "t": int(row["t"])}) == want


def test_missing_values_are_nan(fit):
    row = DATA.iloc[3].to_dict()
    for level in LEVELS:
        score = fit.scorer(level)
        for name in score.columns:
            for nothing in (None, np.nan, pd.NA):
                assert np.isnan(score.one(**{**row, name: nothing})), name


def test_columns_that_are_not_there(fit):
    score = fit.scorer()
    row = DATA.iloc[3].to_dict()
    for name in score.columns:
        with pytest.raises(lf.DataError, match=f"no column '{name}'"):
            score.one(**{key: value for key, value in row.items() if key != name})


def test_copies_and_threads(fit):
    score = fit.scorer()
    again = pickle.loads(pickle.dumps(score))
    rows = DATA.to_dict("records")
    want = [score.one(**row) for row in rows[:50]]
    assert [again.one(**row) for row in rows[:50]] == want
    np.testing.assert_array_equal(again(DATA), score(DATA))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: again.one(**row), rows[:50] * 8))
    assert found == want * 8


def test_it_cannot_be_changed():
    score = lf.lmm("y ~ t + (1 | id)", DATA).scorer()
    with pytest.raises(AttributeError, match="cannot be changed"):
        score.level = "population"
    with pytest.raises(AttributeError, match="cannot be changed"):
        del score.level
    with pytest.raises(AttributeError):
        score.other = 1


def test_it_holds_no_rows():
    rng = np.random.default_rng(1)
    big = pd.DataFrame({"y": rng.normal(size=50_000), "id": np.repeat(np.arange(10), 5000)})
    fit = lf.lmm("y ~ 1 + (1 | id)", big)
    assert len(pickle.dumps(fit.scorer())) < 4000


@pytest.mark.parametrize("key, unknown", [("id", 12345), ("name", "nobody"), ("half", 0.25)])
def test_new_groups(key, unknown):
    fit = lf.lmm(f"y ~ t + arm + (t | {key})", DATA)
    row = {"t": 2.5, "arm": "b", key: unknown}
    table = {name: [value] for name, value in row.items()}
    population = fit.predict(table)[0]
    assert fit.scorer().one(**row) == population == fit.scorer()(table)[0]
    assert np.isnan(fit.scorer(new_levels="missing").one(**row))
    with pytest.raises(lf.DataError, match="that the fit did not have"):
        fit.scorer(new_levels="error").one(**row)
    with pytest.warns(NewGroupsWarning):
        fit.predict(table, level="conditional")
    other = "text" if key != "name" else 3
    with pytest.raises(lf.DataError, match="in the fit and are"):
        fit.scorer().one(**{**row, key: other})


def test_warnings_lead_to_whoever_asked(recwarn):
    fit = lf.lmm("y ~ t + (1 | id)", DATA)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit.predict({"t": [1], "id": [99999]}, level="conditional")
        lf.lmm("y ~ t + (1 | id)", DATA, offset=DATA["o"]).scorer()
    assert [w.category for w in caught] == [NewGroupsWarning, NewDataWarning]
    assert all(w.filename == __file__ for w in caught)


def test_what_is_not_in_range():
    with pytest.raises(lf.DataError, match="not finite"):
        lf.lmm("y ~ t:x + (t | id)", DATA).scorer().one(t=1e200, x=1e200, id=-40)
    score = lf.lmm("y ~ t + arm + (t | id)", DATA).scorer()
    with pytest.raises(lf.DataError, match="levels that the fit has not seen: 'd'"):
        score.one(t=1, arm="d", id=-40)
    with pytest.raises(lf.DataError, match="beyond 64 bits"):
        score.one(t=1 << 70, arm="a", id=-40)
    with pytest.raises(ValueError, match="new_levels='zero'"):
        lf.lmm("y ~ t + (1 | id)", DATA).scorer(new_levels="zero")
    with pytest.raises(ValueError, match="level='id'"):
        lf.lmm("y ~ t + (1 | id)", DATA).scorer("id")


def test_levels_of_nested_factors():
    fit = lf.lmm("y ~ t + (1 | site/patient)", DATA)
    score = fit.scorer("site")
    np.testing.assert_array_equal(score(DATA), fit.predict(DATA, level="site"))
    assert score.columns == ("t", "site")
    row = {"t": 1.0, "site": "so:uth"}
    table = {name: [value] for name, value in row.items()}
    assert score.one(**row) == fit.predict(table, level="site")[0]


@pytest.mark.parametrize("key", ["id", "name"])
@pytest.mark.parametrize("effects", [None, ["t"]])
def test_models_of_arrays(key, effects):
    X = np.column_stack([np.ones(N), DATA["t"], DATA["x"]])
    Z = None if effects is None else X[:, :2]
    fit = lf.fit(DATA["y"].to_numpy(), X, DATA[key].to_numpy(), Z=Z)
    score = fit.scorer()
    expected = fit.predict(X, level="conditional", groups=DATA[key].to_numpy(), Z=Z)
    np.testing.assert_array_equal(score(X, groups=DATA[key].to_numpy(), Z=Z), expected)
    for k in range(0, N, 17):
        row = {"x0": 1.0, "x1": X[k, 1], "x2": X[k, 2], "group": DATA[key].iloc[k]}
        if effects is not None:
            row |= {"z0": 1.0, "z1": X[k, 1]}
        assert score.one(**row) == expected[k]
        assert np.isnan(score.one(**{**row, "x2": None}))
        assert np.isnan(score.one(**{**row, "group": None}))
    with pytest.raises(lf.DataError, match="no value of 'x1'"):
        score.one(x0=1, x2=1, z0=1, z1=1, group=DATA[key].iloc[0])
    population = fit.scorer("population")
    assert population.one(x0=1, x1=2, x2=None) != population.one(x0=1, x1=2, x2=0.5)


def test_arrays_of_several_factors():
    X = np.column_stack([np.ones(N), DATA["t"]])
    groups = {"id": DATA["id"].to_numpy(), "item": DATA["item"].to_numpy()}
    fit = lf.fit(DATA["y"].to_numpy(), X, groups, Z=[X, None])
    score = fit.scorer()
    expected = fit.predict(X, level="conditional", groups=groups, Z=[X, None])
    row = {"x0": 1.0, "x1": X[5, 1], "z0": 1.0, "z1": X[5, 1]}
    found = score.one(**row, id=groups["id"][5], item=groups["item"][5])
    assert found == expected[5]
    assert np.isnan(score.one(**{**row, "z1": np.nan}, id=groups["id"][5], item=1))


def test_a_name_of_two_values():
    X = pd.DataFrame({"group": np.ones(N), "t": DATA["t"]})
    fit = lf.fit(DATA["y"], X, DATA["id"])
    with pytest.raises(lf.DataError, match="'group' is a column of X or Z and a grouping factor"):
        fit.scorer().one(group=1, t=2)


def test_states_of_other_versions():
    score = lf.lmm("y ~ t + (1 | id)", DATA).scorer()
    with pytest.raises(lf.DataError, match="pickled by another version"):
        score.__setstate__({**score.__getstate__(), "_state_version": 99})


@pytest.mark.parametrize(
    "labels, keys, expected",
    [
        ([1, 3, 5], [5, 2, 1], [2, -1, 0]),
        ([5, 1, 3], [5, 2, 1], [0, -1, 1]),
        ([1, 3, 5], [5.0, 2.5, np.nan], [2, -1, -1]),
        ([1, 3, 5], [1e300, -1e300, np.inf], [-1, -1, -1]),
        (np.array([2**53, 2**53 + 1]), [2.0**53], [0]),
        (np.array([2**53 + 1]), [2.0**53], [-1]),
        (np.array([2**63 - 1]), np.array([2.0**63]), [-1]),
        (np.array([-1, 4]), np.array([2**64 - 1, 4], dtype=np.uint64), [-1, 1]),
        (np.array([4, 2**64 - 1], dtype=np.uint64), [-1, 4], [-1, 0]),
        (np.array([0.1], dtype=np.float32), [0.1], [-1]),
        (np.array([0.1], dtype=np.float32), np.array([0.1], dtype=np.float32), [0]),
        (np.array([0.5, 2.0]), [2, 3], [1, -1]),
        (np.array([2.0**53]), np.array([2**53 + 1, 2**53]), [-1, 0]),
        (np.array([1, 300], dtype=np.int16), np.array([44, 300], dtype=np.int64), [-1, 1]),
        (np.array(["a", "b"], dtype=object), np.array(["b", "c"], dtype=object), [1, -1]),
        (np.array([False, True]), np.array([True, False]), [1, 0]),
    ],
)
def test_positions(labels, keys, expected):
    lookup = GroupLookup(np.asarray(labels))
    assert lookup.positions(np.asarray(keys)).tolist() == expected


@pytest.mark.parametrize(
    "labels, label, expected",
    [
        ([1, 3, 5], 3, 1),
        ([1, 3, 5], 4, -1),
        ([1, 3, 5], 6, -1),
        ([5, 1, 3], 3, 2),
        ([5, 1, 3], 2, -1),
        (np.array([1, 3], dtype=np.uint8), 300, -1),
        (np.array([1, 3], dtype=np.uint64), -1, -1),
        (np.array(["a", "c"], dtype=object), "c", 1),
        (np.array(["a", "c"], dtype=object), "b", -1),
        (np.array(["a", 1], dtype=object), "a", 0),
        ([0.5, 1.5], 1.5, 1),
    ],
)
def test_position(labels, label, expected):
    assert GroupLookup(np.asarray(labels)).position(label) == expected
