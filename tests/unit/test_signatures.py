"""Calls that mean what they look like, or are refused; results that are the caller's own."""

import inspect
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.errors import NewGroupsWarning

SLEEP = lf.datasets.sleepstudy()


def cauchy(psi, values):
    a = ((values - values.T) / np.exp(psi[0])) ** 2
    return 1 / (1 + a), (2 * a / (1 + a) ** 2)[None]


#: What structures print, evaluated, is to give them again.
STRUCTURES = {name: getattr(lf, name) for name in lf.__all__} | {
    "cauchy": cauchy,
    "TIMES": np.arange(6.0),
}


@pytest.fixture(scope="module")
def fit():
    return lf.lmm("Reaction ~ Days + (Days | Subject)", SLEEP)


@pytest.mark.parametrize(
    "call, meant",
    [
        ("OU('t', 'Sex')", "OU('t', by='Sex')"),
        ("OU('t', True)", "OU('t', nugget=True)"),
        ("OU('t', True, by='arm')", "OU('t', nugget=True, by='arm')"),
        ("OU(TIMES, TIMES)", "OU(<array>, by=<array>)"),
        ("CompoundSymmetry('visit')", "CompoundSymmetry(by='visit')"),
        ("HeterogeneousCS('visit', 'arm')", "HeterogeneousCS('visit', by='arm')"),
        ("AR1('visit', 'arm')", "AR1('visit', by='arm')"),
        ("HeterogeneousAR1('visit', 'arm')", "HeterogeneousAR1('visit', by='arm')"),
        ("Toeplitz('v', 2)", "Toeplitz('v', bands=2)"),
        ("HeterogeneousToeplitz('v', 2, 'a')", "HeterogeneousToeplitz('v', bands=2, by='a')"),
        ("Antedependence('v', 'arm')", "Antedependence('v', by='arm')"),
        ("HeterogeneousAntedependence('v', 'a')", "HeterogeneousAntedependence('v', by='a')"),
        ("Unstructured('v', 'arm')", "Unstructured('v', by='arm')"),
        ("VarPower('t', 'arm')", "VarPower('t', by='arm')"),
        ("VarExp('t', 'arm')", "VarExp('t', by='arm')"),
        ("SpatialMatern('x', 'y', 2.5)", "SpatialMatern('x', 'y', nu=2.5)"),
        ("SpatialExponential('x', True)", "SpatialExponential('x', nugget=True)"),
        ("ByGroup('a', 'b')", "ByGroup('a')"),
        ("Independent('x')", "Independent()"),
    ],
)
def test_options_of_structures_are_named(call, meant):
    with pytest.raises(TypeError) as caught:
        eval(call, STRUCTURES)
    assert str(caught.value).endswith(f"write {meant}")
    if "<array>" not in meant:
        assert repr(eval(meant, STRUCTURES)) == meant


@pytest.mark.parametrize(
    "call, why",
    [
        ("AR1(None)", "columns are names or arrays, options are by"),
        ("OU('t', nugget='Sex')", "nugget='Sex' must be True or False.*by='Sex'"),
        ("OU('t', nugget=1)", "nugget=1 must be True or False$"),
        ("OU('t', by=True)", "by=True must be a column"),
    ],
)
def test_options_of_structures_have_their_types(call, why):
    with pytest.raises(TypeError, match=why):
        eval(call, STRUCTURES)


def test_options_of_D_are_named():
    for call in (lf.D.cs, lf.D.diag):
        with pytest.raises(TypeError, match="positional argument"):
            call(True)


@pytest.mark.parametrize("alpha, meant", [(0.95, "alpha=0.05"), (0.9, "alpha=0.1")])
def test_levels_are_not_taken_for_alpha(fit, alpha, meant):
    for call in (fit.conf_int, fit.tidy, fit.variance_table, fit.summary):
        with pytest.raises(ValueError, match=f"must lie between 0 and 0.5.*{meant}"):
            call(alpha)
    with pytest.raises(ValueError, match=meant):
        fit.plot_curves(SLEEP, "Days", alpha=alpha)
    with pytest.raises(ValueError, match=meant):
        fit.plot_random_effects(alpha=alpha)


@pytest.mark.parametrize("alpha", [0, -0.1, 1.0, 2, "5%", None, np.nan])
def test_alphas_that_are_none(fit, alpha):
    with pytest.raises(ValueError, match=r"between 0 and 0\.5"):
        fit.conf_int(alpha)
    assert (fit.conf_int(0.5).iloc[:, 0] < fit.params).all()


@pytest.mark.parametrize(
    "made",
    [lf.D.cs(hom=True), lf.D.cs(), lf.D.diag(), lf.D.identity(), lf.D.unstructured()],
    ids=repr,
)
def test_structures_of_D_print_as_themselves(made):
    assert eval(repr(made), {"D": lf.D}) == made


def parts(structure):
    """Everything that a structure is made of, as far as it is not an object of its own."""
    found = structure.correlation
    own = [] if found is None else [replace(found, custom=None), found.custom]
    return [vars(part) if part is not None else None for part in (*own, *structure.variances)]


@pytest.mark.parametrize(
    "written",
    [
        "Independent()",
        "ByGroup('arm')",
        "VarPower('t')",
        "VarExp('t', by='arm')",
        "CompoundSymmetry()",
        "CompoundSymmetry(by='arm')",
        "HeterogeneousCS('v')",
        "AR1('v')",
        "HeterogeneousAR1('v', by='arm')",
        "OU('t', nugget=True, by='arm')",
        "Toeplitz('v', bands=2)",
        "HeterogeneousToeplitz('v', bands=1, by='arm')",
        "Antedependence('v')",
        "HeterogeneousAntedependence('v')",
        'Unstructured("it\'s")',
        "SpatialExponential('x', 'y', nugget=True)",
        "SpatialGaussian('x')",
        "SpatialSpherical('x', 'y', 'z')",
        "SpatialPower('x', by='arm')",
        "SpatialMatern('x', 'y', nu=2.5)",
        "CustomCorrelation('t', function=cauchy, start=[0.5])",
        "CustomCorrelation('t', 'u', function=cauchy, start=[0.0], names=['log_range'])",
        "AR1('v') * ByGroup('arm') * VarPower('t')",
        "ByGroup('arm') * OU('t', nugget=True)",
    ],
)
def test_residual_structures_print_as_themselves(written):
    made = eval(written, STRUCTURES)
    assert repr(made) == written
    assert parts(eval(repr(made), STRUCTURES)) == parts(made)


def test_group_is_a_group_and_factor_a_grouping_factor(fit):
    """``group=`` is the label of one group everywhere; a grouping factor is ``factor=``."""
    label = SLEEP["Subject"].iloc[0]
    assert fit.implied_covariance(group=label).shape == (10, 10)
    with pytest.raises(ValueError, match="factor='S308': choose one of 'Subject'"):
        fit.plot_random_effects(factor=label)
    for call in (fit.implied_covariance, fit.plot_covariance):
        assert "group" in inspect.signature(call).parameters
    assert next(iter(inspect.signature(fit.plot_random_effects).parameters)) == "factor"


def test_segments_are_a_mapping():
    data = SLEEP.assign(half=SLEEP["Subject"].cat.codes % 2)
    fits = lf.lmm_by("Reaction ~ Days + (1 | Subject)", data, by="half")
    assert list(fits) == [0, 1]
    assert len(fits) == 2
    assert 1 in fits
    assert 2 not in fits
    assert [1] not in fits
    assert fits.get(7) is None
    assert {key: one.nobs for key, one in fits.items()} == {0: 90, 1: 90}
    one = lf.lmm("Reaction ~ Days + (1 | Subject)", data[data["half"] == 1])
    assert fits[1].llf == pytest.approx(one.llf, rel=1e-12)
    with pytest.raises(KeyError, match="no segment"):
        fits[5]
    assert fits == fits
    assert fits != lf.lmm_by("Reaction ~ Days + (1 | Subject)", data, by="half")


@pytest.fixture(scope="module")
def many():
    """Fits of three responses, and the arrays that they are of."""
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(180), SLEEP["Days"]])
    Y = SLEEP["Reaction"].to_numpy()[:, None] + 10 * rng.standard_normal((180, 3))
    Y[:, 2] = 1.0
    names = {"x_names": ["Intercept", "Days"], "z_names": ["Intercept", "Days"]}
    names["group_name"] = "Subject"
    with pytest.warns(lf.ConvergenceWarning, match="constant"):
        fits = lf.fit_many(Y, X, SLEEP["Subject"], X, **names)
    return fits, lambda k: lf.fit(Y[:, k], X, SLEEP["Subject"], X, y_name=f"y{k}", **names)


@pytest.mark.parametrize("k", [0, 1])
def test_one_of_many_fits_has_what_a_fit_has(many, k):
    fits, alone = many
    alone = alone(k)
    one = fits[k]
    for name in "y_name group_name nobs ngroups n_params df_resid method converged".split():
        assert getattr(one, name) == getattr(alone, name), name
    for name in "llf deviance aic bic scale sigma".split():
        assert getattr(one, name) == pytest.approx(getattr(alone, name), rel=1e-6), name
    alone = alone.inference("normal")  # many responses have no degrees of freedom
    for name in "params bse tvalues pvalues theta cov_re".split():
        got, want = getattr(one, name), getattr(alone, name)
        assert got.axes[0].equals(want.axes[0])
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-12, err_msg=name)
    for got, want in (
        (one.tidy(0.1), alone.tidy(0.1)),
        (one.conf_int(0.2), alone.conf_int(0.2)),
        (one.varcorr.to_frame(), alone.varcorr.to_frame()),
    ):
        pd.testing.assert_frame_equal(got, want, rtol=1e-4, atol=1e-12)


def test_one_of_many_fits_prints(many):
    fits, alone = many
    normal = alone(0).inference("normal")
    report, whole = str(fits[0].summary()).splitlines(), str(normal.summary()).splitlines()
    same = [line for line in report if line in whole]
    assert "y0 ~ Intercept + Days + (1 + Days | Subject)   [arrays]" in same
    start = report.index("Fixed effects")
    table = report[start : start + report[start:].index("")]
    assert table == [line for line in table if line in whole]
    assert set(fits[0].summary().tables["model"].index) < set(
        alone(0).summary().tables["model"].index
    )
    assert repr(fits[0]).startswith("<ResponseFit REML of 'y0': 180 rows, 18 groups of 'Subject'")


def test_many_fits_are_found_by_place_and_name(many):
    fits, _ = many
    assert [one.y_name for one in fits] == fits.y_names == ["y0", "y1", "y2"]
    assert fits[1].llf == fits[-2].llf == fits["y1"].llf == fits.llf[1]
    assert not fits[2].converged
    assert np.isnan(fits[2].aic)
    with pytest.raises(IndexError):
        fits[3]
    with pytest.raises(KeyError, match="y_names"):
        fits["none"]


def test_new_groups_can_be_missing(fit):
    new = SLEEP.iloc[[0, 1, 10]].reset_index(drop=True).assign(Subject=["S308", "none", "S309"])
    predicted = fit.predict(new, level="conditional", new_levels="missing")
    assert np.isnan(predicted).tolist() == [False, True, False]
    with pytest.warns(NewGroupsWarning):
        other = fit.predict(new, level="conditional")
    np.testing.assert_array_equal(predicted[[0, 2]], other[[0, 2]])


def test_resid_and_fittedvalues_are_attributes_alike(fit):
    y = SLEEP["Reaction"]
    np.testing.assert_allclose(fit.resid + fit.fittedvalues, y, rtol=1e-12)
    np.testing.assert_array_equal(fit.resid, fit.residuals())
    np.testing.assert_array_equal(fit.fittedvalues, fit.fitted())


def spoil(handed: object) -> None:
    """Overwrite all numbers of what was handed out."""
    if isinstance(handed, dict):
        for value in handed.values():
            spoil(value)
    elif isinstance(handed, pd.DataFrame | pd.Series):
        handed.iloc[:] = -7.0
    else:
        handed[...] = -7.0


@pytest.mark.parametrize(
    "name",
    "params bse theta theta_cov theta_se cov_params random_effects random_effects_cov "
    "group_labels fittedvalues resid".split(),
)
@pytest.mark.parametrize("formula", ["(Days | Subject)", "(1 | Subject) + (1 | Days)"])
def test_what_is_handed_out_is_the_callers(name, formula):
    one = lf.lmm(f"Reaction ~ Days + {formula}", SLEEP)

    def get() -> object:
        value = getattr(one, name)
        return value() if callable(value) else value

    before = str(get())
    spoil(get())
    assert str(get()) == before


def test_lists_and_dicts_of_a_fit_are_the_callers_own():
    gaps = SLEEP.copy() if "SLEEP" in globals() else lf.datasets.sleepstudy()
    gaps["twice"] = 2 * gaps["Days"]
    gaps.loc[gaps.index[0], "Reaction"] = np.nan
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm("Reaction ~ Days + twice + (1 | Subject)", gaps)
    names = ("x_names", "dropped_columns", "missing_counts", "nested_in", "trace")
    before = {name: getattr(fit, name) for name in names}
    assert all(before.values())
    for name in names:
        getattr(fit, name).clear()
    fit.nested_in["Subject"].append("Days")
    fit.trace[0].clear()
    for name in names:
        assert str(getattr(fit, name)) == str(before[name])
    assert fit.summary() and len(fit.params) == 2
