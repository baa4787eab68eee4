"""Independent residuals: every number beside lme4's, nlme's and a dense evaluation's.

The fits use the formulas of the R calls as they are.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from peers import (
    ENGINES,
    METHODS,
    assert_close,
    assert_fixed_effects,
    assert_random_effects,
    assert_variance_components,
    by_group,
    expected,
    formulaic_name,
    load,
    plain_words,
    scale_of_cov,
)

ONE_FACTOR = (
    "cake_factor",
    "dyestuff",
    "dyestuff2",
    "exam",
    "hepatitis_sim_ri",
    "hepatitis_sim_ris",
    "orthodont_ri",
    "orthodont_ris",
    "sleepstudy_ri",
    "sleepstudy_ris",
    "sleepstudy_uncorr",
)
NESTED = ("cake_nested", "cd4_sim", "oxide", "pastes")
CROSSED = ("penicillin",)
CASES = (*ONE_FACTOR, *NESTED, *CROSSED)
ENGINES_OF = (
    dict.fromkeys(ONE_FACTOR, ENGINES)
    | dict.fromkeys(NESTED, ("nested", "crossed"))
    | dict.fromkeys(CROSSED, ("crossed",))
)

FITS = [
    (case, method, engine) for case in CASES for method in METHODS for engine in ENGINES_OF[case]
]
INTERIOR = [key for key in FITS if not expected(key[0])["fits"][key[1]]["on_boundary"]]


@pytest.fixture(scope="module", params=FITS, ids="-".join)
def fitted(request, fit_once):
    return make_fitted(*request.param, fit_once)


@pytest.fixture(scope="module", params=INTERIOR, ids="-".join)
def interior(request, fit_once):
    """Only the fits that are not on the boundary; test_boundary looks at the others."""
    return make_fitted(*request.param, fit_once)


def make_fitted(case, method, engine, fit_once):
    """The fit, the expected numbers (``want``) and what they have in common."""
    spec = expected(case)
    want = spec["fits"][method]
    components = want["varcomp"].items()
    return SimpleNamespace(
        fit=fit_once(spec["dataset"], spec["formula"], method, engine),
        want=want,
        spec=spec,
        method=method,
        engine=engine,
        D={group: np.array(component["cov"], dtype=float) for group, component in components},
        z_names={
            group: [formulaic_name(name, spec["columns"]) for name in component["names"]]
            for group, component in components
        },
    )


def test_what_was_fitted(fitted):
    fit, want = fitted.fit, fitted.want
    assert fit.method == fitted.method
    assert fit.engine == fitted.engine
    assert fit.nobs == want["n_obs"]
    assert by_group(fit, fit.ngroups) == want["n_groups"]
    assert fit.n_dropped == 0
    assert fit.converged


def test_loglik(fitted):
    assert_close(fitted.fit.llf, fitted.want["loglik"], 1e-8)
    assert_close(fitted.fit.deviance, fitted.want["deviance"], 1e-8)


def test_information_criteria(fitted):
    assert_close(fitted.fit.aic, fitted.want["AIC"], 1e-8)
    assert_close(fitted.fit.bic, fitted.want["BIC"], 1e-8)


def test_fixed_effects(fitted):
    assert_fixed_effects(fitted.fit, fitted.want, fitted.spec["columns"])


def test_variance_components(interior):
    for group, names in interior.z_names.items():
        assert list(interior.fit.varcorr[group].cov.columns) == names
    assert_variance_components(interior.fit, interior.D, interior.want["sigma2"])


def test_theta(interior):
    values = np.array(interior.want["param_values"])
    se = np.array(list(interior.want["se_varcomp_expected"].values()))
    # A covariance near zero is known relative to its standard error.
    assert_close(interior.fit.theta, values, 1e-6, np.maximum(np.abs(values), se))


def test_theta_cov(interior):
    cov = np.linalg.inv(interior.want["info_expected"])
    se = list(interior.want["se_varcomp_expected"].values())
    assert_close(interior.fit.theta_cov, cov, 1e-5, scale_of_cov(cov))
    assert_close(interior.fit.theta_se, se, 1e-5)


def test_random_effects(fitted):
    fit, want = fitted.fit, fitted.want
    effects = by_group(fit, fit.random_effects)
    assert list(effects) == list(want["varcomp"])
    for group, names in fitted.z_names.items():
        assert list(effects[group].columns) == names
        assert len(effects[group]) == want["n_groups"][group]
        assert effects[group].index.is_monotonic_increasing
        rows = want["ranef"][group]["levels"]
        assert_random_effects(
            fit,
            [row["level"] for row in rows],
            [row["blup"] for row in rows],
            [row["cond_var"] for row in rows],
            fitted.D[group],
            want["sigma2"],
            group,
        )


def test_fitted_values_and_residuals(fitted):
    fit, want = fitted.fit, fitted.want
    data = load(fitted.spec["dataset"])
    y = data[fitted.spec["formula"].split("~")[0].strip()].to_numpy()[:10]
    sigma = np.sqrt(want["sigma2"])  # the scale of anything added up to a response
    conditional = np.array(want["fitted_first10"])
    population = np.array(want["fitted_population_first10"])
    assert len(fit.fittedvalues) == fit.nobs
    assert_close(np.asarray(fit.fittedvalues)[:10], conditional, 1e-6, sigma)
    assert_close(np.asarray(fit.residuals())[:10], y - conditional, 1e-6, sigma)
    resid = np.asarray(fit.residuals(level="population"))[:10]
    assert_close(resid, y - population, 1e-6, sigma)


def test_predictions(fitted):
    fit, want = fitted.fit, fitted.want
    sigma = np.sqrt(want["sigma2"])
    rows = load(fitted.spec["dataset"]).head(10)
    population = fit.predict(rows, level="population")
    conditional = fit.predict(rows, level="conditional")
    assert_close(population, want["fitted_population_first10"], 1e-6, sigma)
    assert_close(conditional, want["fitted_first10"], 1e-6, sigma)


def test_boundary(fitted):
    """Dyestuff2: a variance of exactly zero is an answer, not a failure (warnings are errors)."""
    fit, want = fitted.fit, fitted.want
    if not want["on_boundary"]:
        assert "boundary" not in plain_words(fit)
        return
    assert fit.converged
    assert "boundary" in plain_words(fit)
    ((group, _),) = want["varcomp"].items()
    assert 0.0 <= fit.varcorr[group].cov.to_numpy().item() <= 1e-10 * want["sigma2"]
    assert_close(fit.scale, want["sigma2"], 1e-6)
    # No standard error for a variance of zero, nor a covariance with it.
    theta_cov = fit.theta_cov.to_numpy()
    assert np.isnan(theta_cov[0]).all()
    assert np.isnan(theta_cov[:, 0]).all()
    assert np.isnan(np.asarray(fit.theta_se)[0])


@pytest.mark.parametrize(
    ("case", "engine"), [*((c, "nested") for c in NESTED), *((c, "crossed") for c in CROSSED)]
)
def test_the_data_choose_the_engine(fit_once, case, engine):
    spec = expected(case)
    assert fit_once(spec["dataset"], spec["formula"], "REML").engine == engine


def test_names_of_r_become_names_of_formulaic():
    columns = {
        "Sex": {"type": "factor", "levels": ["Female", "Male"]},
        "temp": {"type": "numeric"},
        "temperature": {"type": "factor", "levels": ["T175", "T185"]},
        "school": {"type": "factor", "levels": None},
    }
    pairs = {
        "(Intercept)": "Intercept",
        "age": "age",
        "SexMale": "Sex[T.Male]",
        "age:SexMale": "age:Sex[T.Male]",
        "SexMale:temperatureT185": "Sex[T.Male]:temperature[T.T185]",
        "temp": "temp",
        "temperature": "temperature",
        "Sexes": "Sexes",
        "schoolyear": "schoolyear",
        "I(log_days - 6.5)": "I(log_days - 6.5)",
    }
    assert {name: formulaic_name(name, columns) for name in pairs} == pairs


@pytest.mark.parametrize("case", CASES)
def test_translated_names_are_those_formulaic_gives(case):
    from formulaic import Formula

    spec = expected(case)
    names = [formulaic_name(name, spec["columns"]) for name in spec["fits"]["ML"]["beta_names"]]
    fixed = spec["formula"].split("~")[1].split("+ (")[0]
    columns = Formula(fixed).get_model_matrix(load(spec["dataset"])).columns
    assert list(columns) == names
