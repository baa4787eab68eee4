"""Models with several grouping factors: the ways in, results by factor, messages."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.design.design import design_levels
from lmmfast.grouping.implicit_nesting import warn_of_implicit_nesting
from lmmfast.grouping.levels import Levels


def make(seed=0, centres=7, patients=5, visits=4):
    """Patients numbered within centres, rows in any order."""
    rng = np.random.default_rng(seed)
    m = centres * patients
    d = pd.DataFrame(
        {
            "centre": np.repeat([f"C{c}" for c in range(centres)], patients * visits),
            "patient": np.tile(np.repeat(np.arange(1, patients + 1), visits), centres),
            "t": np.tile(np.arange(float(visits)), m),
            "rater": rng.integers(0, 6, m * visits),
        }
    )
    centre, patient = np.repeat(np.arange(centres), patients * visits), np.repeat(np.arange(m), 4)
    d["y"] = (
        2
        + 0.5 * d["t"]
        + rng.normal(0, 1.0, centres)[centre]
        + rng.normal(0, 0.8, m)[patient]
        + rng.normal(0, 0.3, m)[patient] * d["t"]
        + rng.normal(0, 0.7, 6)[d["rater"]]
        + rng.normal(0, 0.5, len(d))
    )
    d["id"] = d["centre"] + "-" + d["patient"].astype(str)
    return d.sample(frac=0.9, random_state=seed).reset_index(drop=True)


DATA = make()
NESTED = "y ~ t + (1 | centre) + (1 + t | centre:patient)"
CROSSED = "y ~ t + (1 | id) + (1 | rater)"


@pytest.fixture(scope="module")
def nested():
    return lf.lmm(NESTED, DATA)


@pytest.fixture(scope="module")
def crossed():
    return lf.lmm(CROSSED, DATA)


def test_engines_are_chosen_by_the_data(nested, crossed):
    assert nested.engine == "nested" and crossed.engine == "crossed"
    assert nested.nested_in == {"centre": [], "centre:patient": ["centre"]}
    assert crossed.nested_in == {"id": [], "rater": []}
    unique = lf.lmm("y ~ t + (1 + t | id) + (1 | centre)", DATA)  # nested without a colon
    assert unique.engine == "nested"
    assert unique.llf == pytest.approx(nested.llf, rel=1e-12)


@pytest.mark.parametrize("formula", [NESTED, CROSSED, "y ~ t + (1 | centre/patient) + (1 | rater)"])
@pytest.mark.parametrize("reml", [True, False])
def test_all_engines_agree(formula, reml):
    fit = lf.lmm(formula, DATA, reml=reml)
    want = lf.lmm(formula, DATA, reml=reml, engine="reference")
    assert fit.converged and want.converged
    assert fit.llf == pytest.approx(want.llf, rel=1e-10)
    np.testing.assert_allclose(fit.theta, want.theta, rtol=2e-6, atol=1e-8)
    np.testing.assert_allclose(fit.params, want.params, rtol=1e-6)
    np.testing.assert_allclose(fit.bse, want.bse, rtol=1e-6)
    np.testing.assert_allclose(fit.theta_se, want.theta_se, rtol=1e-5)
    for name in fit.factor_names:
        b, expected = fit.random_effects[name], want.random_effects[name]
        pd.testing.assert_frame_equal(b, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            fit.random_effects_cov[name], want.random_effects_cov[name], rtol=1e-5, atol=1e-8
        )


def test_crossed_engine_fits_nested_factors_too(nested):
    fit = lf.lmm(NESTED, DATA, engine="crossed")
    assert fit.engine == "crossed"
    assert fit.llf == pytest.approx(nested.llf, rel=1e-10)
    np.testing.assert_allclose(fit.theta, nested.theta, rtol=2e-6)


def test_results_by_factor(nested):
    assert nested.ngroups == {"centre": 7, "centre:patient": 35}
    assert nested.group_sizes["centre"][0] >= 10
    effects = nested.random_effects
    assert list(effects) == ["centre", "centre:patient"]
    assert list(effects["centre"].index) == [f"C{c}" for c in range(7)]
    assert effects["centre:patient"].columns.tolist() == ["Intercept", "t"]
    assert "C3:2" in effects["centre:patient"].index
    assert nested.varcorr["centre"].cov.shape == (1, 1)
    assert nested.varcorr["centre:patient"].cov.shape == (2, 2)
    text = str(nested.summary())
    assert "Groups of centre:patient  35" in text and "Groups of centre" in text
    assert "7 groups of 'centre' and 35 groups of 'centre:patient'" in repr(nested)
    assert nested.summary().tables["model"].loc["ngroups[centre]", "value"] == 7


def test_arrays(nested):
    y, X = DATA["y"].to_numpy(), np.column_stack([np.ones(len(DATA)), DATA["t"]])
    groups = {"centre": DATA["centre"], "centre:patient": DATA["id"]}
    fit = lf.fit(y, X, groups, [None, X], z_names=[None, ["Intercept", "t"]])
    assert fit.llf == pytest.approx(nested.llf, rel=1e-12)
    assert fit.theta_names == nested.theta_names
    unnamed = lf.fit(y, X, list(groups.values()), [None, X])
    assert unnamed.factor_names == ("group1", "group2")
    named = lf.fit(y, X, list(groups.values()), group_name=["a", "b"])
    assert named.factor_names == ("a", "b")
    table = lf.fit(y, X, DATA[["centre", "id"]])
    assert table.factor_names == ("centre", "id")
    assert table.llf == pytest.approx(named.llf, rel=1e-12)
    new = fit.predict(X[:5], "centre", groups=[g[:5] for g in groups.values()], Z=[None, X[:5]])
    np.testing.assert_allclose(new, nested.fitted("centre")[:5], rtol=1e-10)


def test_levels_of_prediction(nested):
    population, centre = nested.fitted("population"), nested.fitted("centre")
    patient = nested.fitted("centre:patient")
    pd.testing.assert_series_equal(patient, nested.fittedvalues)
    pd.testing.assert_series_equal(nested.predict(DATA, "centre"), centre)
    pd.testing.assert_series_equal(nested.predict(DATA, ["centre"]), centre)
    pd.testing.assert_series_equal(nested.predict(DATA, "centre:patient"), patient)
    b = nested.random_effects["centre"]["Intercept"]
    np.testing.assert_allclose(centre - population, b.loc[DATA["centre"]], rtol=1e-9)
    with pytest.raises(ValueError, match="'population', 'centre', 'centre:patient'"):
        nested.fitted("patient")


def test_crossed_levels_of_prediction(crossed):
    population = crossed.fitted("population")
    by_id, by_rater = crossed.fitted("id"), crossed.fitted("rater")
    np.testing.assert_allclose(by_id + by_rater - population, crossed.fittedvalues, rtol=1e-12)
    np.testing.assert_allclose(crossed.fitted(["id", "rater"]), crossed.fittedvalues, rtol=1e-12)


def test_new_levels(nested):
    new = DATA.head(3).assign(centre=["C1", "C1", "elsewhere"], patient=[1, 99, 1])
    with pytest.warns(lf.NewGroupsWarning) as caught:
        got = nested.predict(new, "conditional")
    assert [("'centre'" in str(w.message)) for w in caught].count(True) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known = nested.predict(new.head(2), "centre")
    population = nested.predict(new, "population")
    assert got[2] == population[2]  # new centre, so its patients are new
    assert got[1] == pytest.approx(known[1])  # new patient of a known centre
    assert got[0] != pytest.approx(known[0])
    with pytest.raises(lf.DataError, match="'centre:patient' that the fit did not have"):
        nested.predict(new.head(2), "conditional", new_levels="error")
    with pytest.raises(lf.DataError, match="no column 'patient'"):
        nested.predict(new.drop(columns="patient"), "conditional")
    assert len(nested.predict(new.head(2).drop(columns="patient"), "centre")) == 2


def test_residuals(nested):
    np.testing.assert_allclose(nested.residuals(), DATA["y"] - nested.fittedvalues)
    np.testing.assert_allclose(nested.residuals("pearson"), nested.residuals() / nested.sigma)
    np.testing.assert_allclose(
        nested.residuals(level="centre"), DATA["y"] - nested.fitted("centre")
    )


def test_saved_fits_predict(nested, crossed):
    for fit in (nested, crossed):
        saved = pickle.loads(pickle.dumps(fit))
        pd.testing.assert_series_equal(
            saved.predict(DATA, "conditional"), fit.predict(DATA, "conditional")
        )
        assert saved.random_effects.keys() == fit.random_effects.keys()
        np.testing.assert_allclose(saved.theta_se, fit.theta_se)
        with pytest.raises(lf.DataError, match="need the data"):
            _ = saved.random_effects_cov
        assert copy.copy(fit).ngroups == fit.ngroups


def test_refit_and_start(nested, crossed):
    for fit, formula in ((nested, NESTED), (crossed, CROSSED)):
        other = DATA.assign(y=DATA["y"] ** 2)
        want = lf.lmm(formula, other)
        again = fit.refit(other["y"])
        assert again.llf == pytest.approx(want.llf, rel=1e-10)
        warm = lf.lmm(formula, DATA, start=fit)
        assert warm.llf == pytest.approx(fit.llf, rel=1e-12)
        assert warm.certificate.evaluations <= fit.certificate.evaluations
    with pytest.raises(lf.UnsupportedModelError, match="cannot be appended"):
        nested.append(DATA)


def test_weights_and_offset(nested):
    w = np.random.default_rng(1).uniform(0.5, 2, len(DATA))
    for formula in (NESTED, CROSSED):
        fit = lf.lmm(formula, DATA, weights=w, offset=0.1 * DATA["t"])
        want = lf.lmm(formula, DATA, weights=w, offset=0.1 * DATA["t"], engine="reference")
        assert fit.llf == pytest.approx(want.llf, rel=1e-10)
        np.testing.assert_allclose(fit.theta, want.theta, rtol=2e-6, atol=1e-8)


def test_several_variances_of_zero():
    rng = np.random.default_rng(5)
    d = DATA.assign(y=rng.normal(size=len(DATA)))
    d["y"] -= d.groupby("centre")["y"].transform("mean")
    d["y"] -= d.groupby("id")["y"].transform("mean")
    for formula in ("y ~ 1 + (1 | centre/patient)", "y ~ 1 + (1 | centre/patient) + (1 | rater)"):
        fit = lf.lmm(formula, d)
        assert fit.converged and fit.certificate.on_boundary
        assert fit.certificate.status.count("is zero") >= 2
        assert fit.theta.iloc[0] == 0 and fit.theta.iloc[1] == 0
        assert (fit.random_effects["centre"] == 0).all().all()
        want = lf.lmm(formula, d, engine="reference")
        assert fit.llf == pytest.approx(want.llf, rel=1e-9)


def test_messages():
    with pytest.raises(lf.NotIdentifiableError, match="'one' has a single group"):
        lf.lmm("y ~ t + (1 | one/centre)", DATA.assign(one="a"))
    with pytest.raises(lf.NotIdentifiableError, match="cannot tell"):
        lf.lmm("y ~ t + (1 | centre) + (1 | same)", DATA.assign(same=DATA["centre"] + "x"))
    with pytest.raises(lf.NotIdentifiableError, match="every row is its own group"):
        lf.lmm("y ~ t + (1 | centre) + (1 | row)", DATA.assign(row=np.arange(len(DATA))))
    with pytest.raises(lf.UnsupportedModelError, match="are crossed"):
        lf.lmm(CROSSED, DATA, engine="nested")
    with pytest.raises(lf.UnsupportedModelError, match="single grouping factor"):
        lf.lmm(CROSSED, DATA, engine="moments")
    with pytest.raises(lf.UnsupportedModelError, match="several grouping factors"):
        lf.lmm("y ~ t + (1 | id)", DATA, engine="nested")
    with pytest.raises(lf.DataError, match="constant or fitted exactly"):
        lf.lmm(NESTED, DATA.assign(y=1.0))
    with pytest.raises(lf.NotIdentifiableError, match="exactly"):
        lf.lmm("y ~ 1 + (1 | centre/patient)", DATA.assign(y=DATA["id"].map(hash) % 97))
    with pytest.raises(lf.DataError, match="'y' is infinite in row 3"):
        y = DATA["y"].to_numpy(copy=True)
        y[3] = np.inf
        lf.fit(y, np.ones((len(y), 1)), [DATA["centre"], DATA["id"]])
    with pytest.raises(lf.UnsupportedModelError, match="residual structures go with one"):
        lf.lmm(CROSSED, DATA, residual=lf.AR1("t"))
    with pytest.raises(lf.DataError, match="entry for each"):
        lf.fit(DATA["y"], np.ones((len(DATA), 1)), [DATA["centre"], DATA["id"]], DATA["t"])


def test_a_dropped_column_of_X_is_told():
    d = DATA.assign(twice=2 * DATA["t"])
    for random in ("(1 | centre/patient)", "(1 | id) + (1 | rater)"):
        with pytest.warns(lf.RankWarning, match="twice"):
            fit = lf.lmm(f"y ~ t + twice + {random}", d)
        assert fit.llf == pytest.approx(lf.lmm(f"y ~ t + {random}", d).llf, rel=1e-10)


def casks(labels, batches=tuple("1234")):
    """Levels of 3 casks in 4 batches, two rows each."""
    batch, cask = np.repeat(np.arange(4), 6), np.tile(np.repeat(np.arange(3), 2), 4)
    one = np.array([0])
    return Levels(("batch", "cask"), (one, one + 1), (batch, cask), (np.array(batches), labels))


@pytest.mark.parametrize(
    "labels", [np.arange(3), np.array(list("abc")), np.array(["c1", "c2", "c3"])]
)
def test_counted_labels_are_warned_of(labels):
    with pytest.warns(lf.NestingWarning, match=r"\(1 \| batch/cask\)"):
        warn_of_implicit_nesting(casks(np.array(labels)), stacklevel=2)


def test_names_are_not_warned_of(recwarn):
    names = casks(np.array(["oak", "beech", "ash"]), ["red", "white", "green", "blue"])
    warn_of_implicit_nesting(names, stacklevel=2)
    # Each plate has one row of each sample: two factors of an experiment.
    plate, sample = np.divmod(np.arange(24), 6)
    one = np.array([0])
    labels = (np.arange(4), np.arange(6))
    levels = Levels(("plate", "sample"), (one, one + 1), (plate, sample), labels)
    warn_of_implicit_nesting(levels, stacklevel=2)
    assert not [w for w in recwarn if issubclass(w.category, lf.NestingWarning)]


def test_patients_numbered_within_centres_are_warned_of():
    with pytest.warns(lf.NestingWarning, match="centre/patient"):
        lf.lmm("y ~ t + (1 | centre) + (1 | patient)", DATA)


def test_chains_are_found_in_any_order():
    from lmmfast.design.from_formula import FormulaDesign

    design = FormulaDesign(
        "y ~ 1 + (1 | id) + (1 | region) + (1 | centre)",
        DATA.assign(region=DATA["centre"].map(lambda c: "north" if c < "C3" else "south")),
    )
    levels = design_levels(design)
    assert [levels.names[k] for k in levels.chain] == ["region", "centre", "id"]
    parent = levels.parents[0, 2]
    labels = np.asarray(levels.labels[2])[parent]
    assert [str(own).split("-")[0] for own in levels.labels[0]] == labels.tolist()


def test_the_order_of_rows_and_labels_changes_nothing(nested, crossed):
    rng = np.random.default_rng(3)
    names = dict(zip(DATA["centre"].unique(), rng.permutation(100)[:7], strict=True))
    other = DATA.sample(frac=1, random_state=1).assign(
        centre=lambda d: d["centre"].map(names),
        id=lambda d: pd.Categorical(d["id"]).codes * 7 + 3,
        rater=lambda d: "r" + d["rater"].astype(str),
    )
    for fit, formula in ((nested, NESTED), (crossed, CROSSED)):
        again = lf.lmm(formula, other)
        assert again.llf == pytest.approx(fit.llf, rel=1e-12)
        np.testing.assert_allclose(again.theta, fit.theta, rtol=1e-7)
