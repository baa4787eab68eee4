"""Refit and append: equal to a fit from the beginning of the same rows."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lmmfast as lf

FORMULA = "y ~ t + arm + x + (1 + t | id)"


def growth(m=60, seed=1, first=0, text=True, n_max=6):
    """Rows of m subjects in random order: t, arm (text), x, w, o, y and id."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, n_max + 1, m)
    g = np.repeat(np.arange(m), sizes)
    n = len(g)
    b = rng.normal(size=(m, 2)) @ np.array([[1.0, 0.3], [0.0, 0.6]])
    d = pd.DataFrame(
        {
            "t": rng.uniform(0, 3, n),
            "arm": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
            "x": rng.normal(50, 10, n),
            "w": rng.uniform(0.5, 2.0, n),
            "o": rng.normal(size=n),
            "id": g + first,
        }
    )
    d["y"] = 2 + 0.5 * d["t"] + (d["arm"] == "b") + 0.02 * d["x"] + d["o"]
    d["y"] += b[g, 0] + b[g, 1] * d["t"] + rng.normal(size=n) / np.sqrt(d["w"])
    if text:
        d["id"] = "s" + d["id"].astype(str).str.zfill(5)
    return d.sample(frac=1, random_state=seed).reset_index(drop=True)


def assert_same_fit(fit, whole, effects=1e-7):
    """Log-likelihood to 1e-10, estimates to 1e-7 of their standard errors."""
    assert fit.converged and whole.converged
    assert_allclose(fit.llf, whole.llf, rtol=1e-10)
    assert list(fit.params.index) == list(whole.params.index)
    assert_allclose((fit.params - whole.params) / whole.bse, 0, atol=1e-7)
    assert_allclose(fit.bse, whole.bse, rtol=1e-7)
    se = whole.theta_se.fillna(whole.scale)
    assert_allclose((fit.theta - whole.theta) / se, 0, atol=1e-7)
    assert_allclose(fit.theta_cov, whole.theta_cov, rtol=1e-6, atol=1e-6 * whole.scale**2)
    assert fit.method == whole.method and fit.certificate.rank == whole.certificate.rank
    assert (fit.nobs, fit.ngroups, fit.group_sizes) == (
        whole.nobs,
        whole.ngroups,
        whole.group_sizes,
    )
    ours, theirs = fit.random_effects, whole.random_effects
    assert_array_equal(ours.index, theirs.index)
    assert ours.index.name == theirs.index.name
    assert_allclose(ours, theirs, atol=effects * np.abs(theirs.to_numpy()).max())
    assert_allclose(fit.random_effects_cov, whole.random_effects_cov, rtol=1e-6, atol=1e-8)


def by_id(d, is_first):
    """Split rows by subject."""
    names = np.sort(d["id"].unique())
    chosen = d["id"].isin(names[is_first(np.arange(len(names)))])
    return d[chosen], d[~chosen]


# -- refit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("options", [{}, {"weights": "w", "offset": "o"}])
@pytest.mark.parametrize("m", [40, 400])
def test_refit_of_a_formula_is_a_fresh_fit(reml, options, m):
    d = growth(m)
    fit = lf.lmm(FORMULA, d, reml=reml, **options)
    y = d["y"] + np.random.default_rng(5).normal(size=len(d)) + 100 * d["t"]
    fresh = lf.lmm(FORMULA, d.assign(y=y), reml=reml, **options)
    for start in ("warm", "cold", fit, fresh.theta):
        new = fit.refit(y, start=start)
        assert_same_fit(new, fresh)
        assert_allclose(new.residuals(), fresh.residuals(), atol=1e-6)
        assert new.residuals().index.equals(d.index)


def test_refit_of_arrays_is_a_fresh_fit():
    d = growth(300, text=False)
    X = np.column_stack([np.ones(len(d)), d["t"], d["x"]])
    given = {"Z": X[:, :2], "weights": d["w"].to_numpy(), "offset": d["o"].to_numpy()}
    fit = lf.fit(d["y"].to_numpy(), X, d["id"].to_numpy(), **given)
    y = np.random.default_rng(2).normal(size=len(d)) + fit.fittedvalues
    assert_same_fit(fit.refit(y), lf.fit(y, X, d["id"].to_numpy(), **given))


def test_refit_of_an_evaluated_response_takes_it_as_the_model_has_it():
    d = growth(80).assign(y=lambda d: np.exp(d["y"] / 10))
    fit = lf.lmm("log(y) ~ t * arm + (1 | id)", d)
    new = fit.refit(np.log(d["y"]) ** 2)
    assert_same_fit(new, lf.lmm("y ~ t * arm + (1 | id)", d.assign(y=np.log(d["y"]) ** 2)))
    assert new.y_name == "log(y)"


@pytest.mark.parametrize("structure", ["diag(t | id)", "cs(t | id)", "identity(t | id)"])
def test_refit_of_every_structure(structure):
    d = growth(200)
    fit = lf.lmm(f"y ~ t + {structure}", d)
    y = d["y"] * 3 + d["x"]
    assert_same_fit(fit.refit(y), lf.lmm(f"y ~ t + {structure}", d.assign(y=y)))


def test_refit_of_the_reference_engine():
    d = growth(15)
    fit = lf.lmm("y ~ t + (1 | id)", d, engine="reference")
    new = fit.refit(d["y"] + d["x"])
    assert new.engine == "reference"
    assert_same_fit(new, lf.lmm("y ~ t + (1 | id)", d.assign(y=d["y"] + d["x"])))


@pytest.mark.parametrize("m", [25, 300])
def test_refit_leaves_and_reaches_the_boundary(m):
    rng = np.random.default_rng(3)
    d = growth(m)
    inside = rng.normal(size=len(d)) + d.groupby("id")["o"].transform("mean") * 2
    edge = rng.normal(size=len(d))
    edge -= d.assign(e=edge).groupby("id")["e"].transform("mean")
    formula = "y ~ t + (1 | id)"
    at_edge = lf.lmm(formula, d.assign(y=edge))
    within = lf.lmm(formula, d.assign(y=inside))
    assert at_edge.certificate.on_boundary and not within.certificate.on_boundary
    assert_same_fit(at_edge.refit(inside), within)
    assert_same_fit(within.refit(edge), at_edge)
    assert_same_fit(at_edge.refit(edge), at_edge)


def test_refit_uses_the_rows_of_the_fit():
    d = growth(50)
    d.loc[[3, 17], "x"] = np.nan
    fit = lf.lmm(FORMULA, d)
    y = d["y"] * 2
    y[3] = np.nan
    whole = lf.lmm(FORMULA, d.assign(y=y))
    assert_same_fit(fit.refit(y), whole)
    assert_same_fit(fit.refit(y.drop([3, 17])), whole)
    assert_same_fit(fit.refit(y.drop([3, 17]).to_numpy()), whole)
    arrays = lf.fit(d["y"], d[["t", "x"]], d["id"], missing="drop")
    again = lf.fit(y, d[["t", "x"]], d["id"], missing="drop")
    assert_same_fit(arrays.refit(y), again)
    with pytest.raises(lf.DataError, match=f"{len(d) - 1} values, but the fit used {len(d) - 2}"):
        fit.refit(y[:-1])
    y[5] = np.nan
    with pytest.raises(lf.DataError, match="y_new is missing in row 5"):
        fit.refit(y)
    y[5] = np.inf
    with pytest.raises(lf.DataError, match="y_new is infinite in row 5"):
        fit.refit(y)
    with pytest.raises(lf.DataError, match="another index"):
        fit.refit(d["y"].iloc[::-1])
    with pytest.raises(lf.DataError, match="must be numbers"):
        fit.refit(d["arm"])
    with pytest.raises(lf.DataError, match="constant or fitted exactly"):
        fit.refit(np.ones(len(d)))
    with pytest.raises(ValueError, match="choose 'warm', 'cold'"):
        fit.refit(d["y"], start="hot")


def test_refit_keeps_dropped_columns_without_a_word(recwarn):
    d = growth(60).assign(twice=lambda d: 2 * d["t"])
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm("y ~ t + twice + (1 | id)", d)
    recwarn.clear()
    new = fit.refit(d["y"] + d["x"])
    assert not recwarn.list
    assert new.dropped_columns == ["twice"]
    assert_same_fit(new, lf.lmm("y ~ t + (1 | id)", d.assign(y=d["y"] + d["x"])))


def test_a_fit_that_has_not_converged_is_no_start():
    d = growth(80)
    with pytest.warns(lf.ConvergenceWarning):
        fit = lf.lmm(FORMULA, d, max_iter=2)
    cold = lf.lmm(FORMULA, d.assign(y=d["y"] * 2))
    assert len(fit.refit(d["y"] * 2).trace) == len(cold.trace)


@pytest.mark.parametrize("sd", [0.0, 0.05, 1.0, 1e3])
def test_refit_from_afar(sd):
    d = growth(300, text=False)
    rng = np.random.default_rng(1)
    b = rng.normal(size=(300, 2))[d["id"]]
    noise = rng.normal(size=len(d))
    fits = [
        lf.lmm("y ~ t + (t | id)", d.assign(y=size * (b[:, 0] + b[:, 1] * d["t"]) + noise))
        for size in (0.0, 1e4, sd)
    ]
    y = sd * (b[:, 0] + b[:, 1] * d["t"]) + noise
    for fit in fits:
        assert_same_fit(fit.refit(y), fits[-1])


def test_a_fit_without_data_says_so():
    d = growth(30)
    saved = pickle.loads(pickle.dumps(lf.lmm("y ~ t + (1 | id)", d)))
    with pytest.raises(lf.DataError, match="refits need the data"):
        saved.refit(d["y"])
    with pytest.raises(lf.DataError, match="appended rows need the data"):
        saved.append(d)


# -- append ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize(
    ("options", "arrays"),
    [({}, False), ({"weights": "w", "offset": "o"}, False), ({"weights": "w"}, True)],
)
def test_append_is_a_fit_of_everything(reml, text, options, arrays):
    d = growth(75, text=text)
    first, rest = by_id(d, lambda i: i % 3 != 1)
    fit = lf.lmm(FORMULA, first, reml=reml, **_given(options, first, arrays))
    new = fit.append(rest, **(_given(options, rest, arrays) if arrays else {}))
    whole = lf.lmm(FORMULA, d, reml=reml, **options)
    assert_same_fit(new, whole)
    assert_allclose(
        new.predict(d, level="conditional"), whole.predict(d, level="conditional"), rtol=1e-7
    )
    assert str(new.varcorr) == str(whole.varcorr)
    assert str(new.summary()).splitlines()[0] == str(whole.summary()).splitlines()[0]


def _given(options, d, arrays):
    return {name: d[column].to_numpy() if arrays else column for name, column in options.items()}


@pytest.mark.parametrize("m_old", [16, 17, 23, 24])
@pytest.mark.parametrize("m_new", [1, 7, 8, 9, 40])
def test_append_at_every_lane(m_old, m_new):
    d = growth(m_old + m_new, seed=m_old + m_new, text=False)
    first, rest = by_id(d, lambda i: i < m_old)
    formula = "y ~ t + (1 | id)"
    assert_same_fit(lf.lmm(formula, first).append(rest), lf.lmm(formula, d))


def test_append_every_night():
    d = growth(130, text=False)
    parts = [d[d["id"] % 10 == k] for k in (3, 1, 0, 9, 2, 4, 5, 8, 7, 6)]
    fits = [lf.lmm(FORMULA, parts[0])]
    before = fits[0].llf, fits[0].random_effects.copy()
    for part in parts[1:]:
        fits.append(fits[-1].append(part))
    assert_same_fit(fits[-1], lf.lmm(FORMULA, d))
    assert_same_fit(fits[4], lf.lmm(FORMULA, d[d["id"] % 10 <= 3].pipe(_with_nine, d)))
    again = fits[0].append(pd.concat(parts[1:]))
    assert_same_fit(again, fits[-1])
    assert fits[0].llf == before[0] and fits[0].random_effects.equals(before[1])


def _with_nine(d, everything):
    return pd.concat([d, everything[everything["id"] % 10 == 9]])


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("options", [{}, {"weights": "w", "offset": "o"}])
def test_append_rows_of_groups_that_the_fit_has(text, options):
    d = growth(90, text=text, n_max=9)
    rng = np.random.default_rng(4)
    night = rng.integers(0, 4, len(d))
    first, *later = (d[night == k] for k in range(4))
    fit = lf.lmm(FORMULA, first, **options)
    for part in later:
        fit = fit.append(part)
    assert_same_fit(fit, lf.lmm(FORMULA, d, **options))


def test_append_to_large_and_rank_deficient_groups():
    d = growth(12, text=False, n_max=200)
    d.loc[d["id"] % 2 == 0, "t"] = 1.0  # no slope to be seen within these groups
    night = np.random.default_rng(1).integers(0, 2, len(d))
    one_row = d[d["id"] == 0].iloc[:1].assign(id=99)
    first = pd.concat([d[night == 0], one_row])
    fit = lf.lmm("y ~ t + (t | id)", first).append(d[night == 1])
    assert_same_fit(fit, lf.lmm("y ~ t + (t | id)", pd.concat([d, one_row])))


def test_append_arrays():
    d = growth(80, text=False)
    first, rest = by_id(d, lambda i: i < 50)
    names = {"x_names": ["one", "t", "x"], "z_names": ["one", "t"], "group_name": "id"}

    def given(d):
        X = np.column_stack([np.ones(len(d)), d["t"], d["x"]])
        return {
            "X": X,
            "groups": d["id"].to_numpy(),
            "Z": X[:, :2],
            "weights": d["w"].to_numpy(),
            "offset": d["o"].to_numpy(),
        }

    fit = lf.fit(first["y"].to_numpy(), **given(first), **names)
    whole = lf.fit(d["y"].to_numpy(), **given(d), **names)
    new = fit.append(rest["y"].to_numpy(), **given(rest))
    assert_same_fit(new, whole)
    table = given(rest)
    table["X"] = pd.DataFrame(table["X"], columns=names["x_names"])[["x", "one", "t"]]
    assert_same_fit(fit.append(rest["y"].to_numpy(), **table), whole)
    few = rest.iloc[:2]  # fewer rows than columns
    assert_same_fit(
        fit.append(few["y"].to_numpy(), **given(few)),
        lf.fit(pd.concat([first, few])["y"].to_numpy(), **given(pd.concat([first, few])), **names),
    )


def test_append_says_what_arrays_it_needs():
    d = growth(40, text=False)
    X = np.column_stack([np.ones(len(d)), d["t"]])
    y, groups = d["y"].to_numpy(), d["id"].to_numpy()
    fit = lf.fit(y, X, groups, Z=X, weights=d["w"].to_numpy())
    more = {"X": X, "groups": groups + 1000, "Z": X, "weights": d["w"].to_numpy()}
    with pytest.raises(lf.DataError, match=r"append\(y, X, groups, Z\)"):
        fit.append(y)
    with pytest.raises(lf.DataError, match="needs Z with columns z0, z1"):
        fit.append(y, **{**more, "Z": None})
    with pytest.raises(lf.DataError, match="had weights given as an array"):
        fit.append(y, **{**more, "weights": None})
    with pytest.raises(lf.DataError, match="had no offset"):
        fit.append(y, **more, offset=y)
    with pytest.raises(lf.DataError, match="were numbers in the fit and are text here"):
        fit.append(y, **{**more, "groups": d["arm"].to_numpy()})
    with pytest.raises(lf.DataError, match="X has 1 columns"):
        fit.append(y, **{**more, "X": X[:, :1]})
    with pytest.raises(lf.DataError, match=r"'x0'.*made up a constant"):
        fit.append(y, **{**more, "X": X + 0.5})
    with pytest.raises(lf.DataError, match=r"'z0'.*was 1 in every row"):
        fit.append(y, **{**more, "Z": X + 0.5})
    with pytest.raises(lf.DataError, match="made from a formula"):
        lf.lmm("y ~ t + (1 | id)", d).append(d, X)


def test_append_leaves_out_rows_with_missing_values():
    d = growth(60)
    first, rest = by_id(d, lambda i: i < 30)
    rest = rest.copy()
    rest.iloc[[1, 5], rest.columns.get_loc("x")] = np.nan
    rest.iloc[2, rest.columns.get_loc("arm")] = None
    fit = lf.lmm(FORMULA, first)
    new = fit.append(rest)
    assert new.n_dropped == 3 and new.missing_counts == {"arm": 1, "x": 2}
    assert_same_fit(new, lf.lmm(FORMULA, pd.concat([first, rest])))
    with pytest.raises(lf.DataError, match="missing values in"):
        fit.append(rest, missing="raise")


def test_append_keeps_levels_and_learnt_transforms():
    d = growth(60).assign(arm=lambda d: pd.Categorical(d["arm"], ["c", "a", "b"]))
    first, rest = by_id(d, lambda i: i < 40)
    formula = "y ~ C(arm) * t + bs(x, df=4, extrapolation='extend') + (1 | id)"
    fit = lf.lmm(formula, first)
    one_arm = rest[rest["arm"] == "a"]
    new = fit.append(one_arm.assign(arm="a"))
    assert list(new.params.index) == list(fit.params.index)
    knots = fit.spec.columns(pd.concat([first, one_arm]))
    rows = pd.concat([first, one_arm])
    whole = lf.fit(rows["y"].to_numpy(), np.column_stack(knots.X), rows["id"].to_numpy())
    assert_allclose(new.llf, whole.llf, rtol=1e-10)
    assert_allclose(new.params, whole.params, rtol=1e-6)
    with pytest.raises(lf.DataError, match=r"'arm' has levels that the fit has not seen: 'new'"):
        fit.append(rest.assign(arm="new"))
    with pytest.raises(lf.DataError, match="no column 'x'"):
        fit.append(rest.drop(columns="x"))
    whole_column = lf.lmm("y ~ I(x - x.mean()) + (1 | id)", first)
    with pytest.warns(lf.NewDataWarning, match="evaluated on the new rows alone"):
        whole_column.append(rest)


def test_append_reaches_and_leaves_the_boundary():
    rng = np.random.default_rng(8)
    d = growth(120, text=False, n_max=5)
    edge = rng.normal(size=len(d))
    d["y"] = edge - d.assign(e=edge).groupby("id")["e"].transform("mean")
    more = growth(90, seed=7, text=False, first=1000)
    formula = "y ~ t + (1 | id)"
    at_edge, within = lf.lmm(formula, d), lf.lmm(formula, more)
    assert at_edge.certificate.on_boundary and not within.certificate.on_boundary
    whole = lf.lmm(formula, pd.concat([d, more]))
    assert_same_fit(at_edge.append(more), whole)
    assert_same_fit(within.append(d), whole)
    noise = d.assign(id=d["id"] + 500)
    assert_same_fit(at_edge.append(noise), lf.lmm(formula, pd.concat([d, noise])))


def test_append_makes_a_dropped_column_estimable_or_says_why_not():
    d = growth(80, text=False)
    first, rest = by_id(d, lambda i: i < 50)
    never = first.assign(extra=0.0), rest.assign(extra=rest["o"])
    formula = "y ~ t + extra + (1 | id)"
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm(formula, never[0])
    assert fit.dropped_columns == ["extra"]
    assert_same_fit(fit.append(never[1]), lf.lmm(formula, pd.concat(never)))
    mixed = first.assign(u=lambda d: 1e-3 * d["x"] + 2000, v=lambda d: d["u"] ** 2)
    mixed["extra"] = mixed["u"] + mixed["v"]
    formula = "y ~ u + v + extra + (1 | id)"
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm(formula, mixed)
    assert fit.dropped_columns == ["extra"]
    assert len(fit._basis.excluded)
    more = rest.assign(u=2000 + 1e-3 * rest["x"], v=lambda d: d["u"] ** 2)
    more["extra"] = more["u"] + more["v"]
    assert fit.append(more).dropped_columns == ["extra"]
    more["extra"] += 1e4 * more["o"]
    with pytest.raises(lf.DataError, match="'extra' of X, which the fit dropped, is not"):
        fit.append(more)


def test_append_moves_the_working_residual_where_the_fit_knew_nothing():
    """A column that hardly varied in the fit explains nearly everything with the new rows."""
    d = growth(200, text=False)
    first, rest = by_id(d, lambda i: i < 100)
    first = first.assign(z=np.random.default_rng(1).normal(size=len(first)) * 1e-5)
    rest = rest.assign(z=np.random.default_rng(2).normal(size=len(rest)))
    rest["y"] += 1e4 * rest["z"]
    first["y"] += 1e4 * first["z"]
    formula = "y ~ t + z + (t | id)"
    fit = lf.lmm(formula, first)
    new = fit.append(rest)
    assert abs(fit.params["z"] - 1e4) > 1e3
    assert not np.array_equal(new._basis.beta, fit._basis.beta)
    assert_same_fit(new, lf.lmm(formula, pd.concat([first, rest])))
    known = pd.concat([first, rest]).sample(frac=0.7, random_state=1)
    others = pd.concat([first, rest]).drop(known.index)
    others["y"] += 1e5 * others["x"]
    assert_same_fit(
        lf.lmm(formula, known).append(others),
        lf.lmm(formula, pd.concat([known, others])),
        effects=1e-6,
    )


@pytest.mark.parametrize("shift", [1e2, 1e4, 1e6])
def test_append_of_shifted_rows_is_accurate_or_refused(shift):
    d = growth(300, text=False)
    first, rest = by_id(d, lambda i: i < 150)
    rest = rest.assign(t=rest["t"] + shift)
    fit = lf.lmm("y ~ t + (1 | id)", first)
    if shift > 1e5:
        with pytest.raises(lf.DataError, match=r"'t' of the new rows lies about .*fit all"):
            fit.append(rest)
        return
    assert_same_fit(fit.append(rest), lf.lmm("y ~ t + (1 | id)", pd.concat([first, rest])))


def test_append_mostly_collinear_rows_is_refused():
    rng = np.random.default_rng(0)
    first = growth(10, text=False).assign(z=lambda d: rng.normal(size=len(d)))
    more = growth(3000, seed=3, text=False, first=100).assign(x=lambda d: 5e4 * d["t"])
    more["z"] = 1e3 * more["t"] + 1e-3 * rng.normal(size=len(more))
    fit = lf.lmm("y ~ t + z + (1 | id)", first.assign(t=first["t"] * 1e-3))
    with pytest.raises(lf.DataError, match="nearly determined by the others"):
        fit.append(more)


def test_labels_of_other_types():
    d = growth(40, text=False)
    first, rest = by_id(d, lambda i: i % 2 == 0)
    formula = "y ~ t + (1 | id)"
    fit, whole = lf.lmm(formula, first), lf.lmm(formula, d)
    for kind in ("int32", "float64", "uint64"):
        new = fit.append(rest.assign(id=rest["id"].astype(kind)))
        assert new.group_labels.dtype == np.int64
        assert_same_fit(new, whole)
    half = rest.assign(id=rest["id"] + 0.5)
    assert_same_fit(fit.append(half), lf.lmm(formula, pd.concat([first, half])))
    category = fit.append(rest.assign(id=rest["id"].astype("category")))
    assert_same_fit(category, whole)
    with pytest.raises(lf.DataError, match="no type holds both"):
        lf.lmm(formula, first.assign(id=first["id"] + (1 << 60))).append(half)
    below = lf.lmm(formula, first.assign(id=first["id"] - 40))
    with pytest.raises(lf.DataError, match="no type holds both"):
        below.append(rest.assign(id=rest["id"].astype("uint64") + np.uint64(1 << 63)))
    pairs = "y ~ t + (1 | arm:id)"
    d = pd.concat([d, d.assign(y=d["y"] + 1)], ignore_index=True)
    first, rest = by_id(d, lambda i: i % 2 == 0)
    new, whole = lf.lmm(pairs, first).append(rest), lf.lmm(pairs, d)
    assert_allclose(new.llf, whole.llf, rtol=1e-10)
    effects = new.random_effects.loc[whole.random_effects.index]
    assert_allclose(effects, whole.random_effects, atol=1e-6)


def test_what_an_appended_fit_cannot_do():
    d = growth(40)
    first, rest = by_id(d, lambda i: i < 20)
    new = lf.lmm("y ~ t + (1 | id)", first).append(rest)
    for impossible in (
        new.residuals,
        new.fitted,
        lambda: new.residuals(kind="normalized"),
        lambda: new.refit(d["y"]),
    ):
        with pytest.raises(lf.DataError, match="a fit with appended rows holds none"):
            impossible()
    saved = pickle.loads(pickle.dumps(new))
    assert_allclose(saved.random_effects, new.random_effects)
    with pytest.raises(lf.DataError, match="engine='reference'"):
        lf.lmm("y ~ t + (1 | id)", first, engine="reference").append(rest)


def test_threads_do_not_matter():
    d = growth(3000, text=False)
    first, rest = by_id(d, lambda i: i % 5 != 0)
    fits = [lf.lmm("y ~ t + (t | id)", first, n_jobs=k).append(rest) for k in (1, 3)]
    assert fits[0].llf == fits[1].llf
    assert fits[0].random_effects.equals(fits[1].random_effects)
