"""Residual structures beside nlme's numbers and those of a dense evaluation.

The five models are those of the textbooks: mares (AR(1), continuous AR(1)), rats (random slopes,
serial correlation, variance as a power of time) and a simulated Ornstein-Uhlenbeck process that is
measured with error.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from peers import (
    METHODS,
    assert_close,
    assert_fixed_effects,
    assert_random_effects,
    expected,
    load,
    scale_of_cov,
)

# Our spelling, the parameters of the residual in the order of the peer's `param_names` (they come
# after those of D), and options.
CASES = {
    "ovary_ar1": ("AR1('Index')", ["rho(Index)", "var(Residual)"], {}),
    "ovary_car1": ("OU('Time')", ["rho(Time)", "var(Residual)"], {}),
    "bodyweight_car1": ("OU('Time')", ["rho(Time)", "var(Residual)"], {}),
    "bodyweight_exp_varpower": (
        "OU('Time') * VarPower('Time')",
        ["rho(Time)", "power(Time)", "var(Residual)"],
        {},
    ),
    "ou_sim": (
        "OU('t', nugget=True)",
        ["var(OU|t)", "rho(t)", "var(Residual)"],
        {"groups": "id"},
    ),
}
ENGINES = ("dense", "markov")
FITS = [(case, method, engine) for case in CASES for method in METHODS for engine in ENGINES]
WITH_RANDOM_EFFECTS = [key for key in FITS if expected(key[0])["fits"][key[1]]["varcomp"]]


@pytest.fixture(scope="module", params=FITS, ids="-".join)
def fitted(request, fit_once):
    return make_fitted(*request.param, fit_once)


@pytest.fixture(scope="module", params=WITH_RANDOM_EFFECTS, ids="-".join)
def with_random_effects(request, fit_once):
    return make_fitted(*request.param, fit_once)


def make_fitted(case, method, engine, fit_once):
    spec = expected(case)
    residual, names, options = CASES[case]
    want = spec["fits"][method]
    fit = fit_once(spec["dataset"], spec["formula"], method, engine, residual=residual, **options)
    of_D = list(fit.theta.index[: len(want["param_names"]) - len(names)])
    return SimpleNamespace(
        fit=fit, want=want, spec=spec, method=method, engine=engine, names=of_D + names
    )


def test_what_was_fitted(fitted):
    fit, want = fitted.fit, fitted.want
    assert fit.method == fitted.method
    assert fit.engine == fitted.engine
    assert fit.nobs == want["n_obs"]
    assert fit.ngroups == next(iter(want["n_groups"].values()))
    assert fit.converged


def test_loglik(fitted):
    assert_close(fitted.fit.llf, fitted.want["loglik"], 1e-8)
    assert_close(fitted.fit.aic, fitted.want["AIC"], 1e-8)
    assert_close(fitted.fit.bic, fitted.want["BIC"], 1e-8)


def test_fixed_effects(fitted):
    assert_fixed_effects(fitted.fit, fitted.want, fitted.spec["columns"])


def test_theta(fitted):
    values = np.array(fitted.want["param_values"])
    se = np.array(list(fitted.want["se_varcomp_expected"].values()))
    assert sorted(fitted.fit.theta.index) == sorted(fitted.names)
    # A covariance, or a correlation per long unit of time, is known relative to its error.
    assert_close(fitted.fit.theta[fitted.names], values, 1e-6, np.maximum(np.abs(values), se))


def test_theta_cov(fitted):
    cov = np.linalg.inv(fitted.want["info_expected"])
    se = list(fitted.want["se_varcomp_expected"].values())
    names = fitted.names
    assert_close(fitted.fit.theta_cov.loc[names, names], cov, 1e-5, scale_of_cov(cov))
    assert_close(fitted.fit.theta_se[names], se, 1e-5)


def test_random_effects(with_random_effects):
    fit, want = with_random_effects.fit, with_random_effects.want
    ((group, component),) = want["varcomp"].items()
    ranef = want["ranef"][group]
    D = np.array(component["cov"], dtype=float)
    assert_close(fit.cov_re, D, 1e-6, scale_of_cov(D))
    assert_random_effects(
        fit,
        [row["level"] for row in ranef["levels"]],
        [row["blup"] for row in ranef["levels"]],
        [row["cond_var"] for row in ranef["levels"]],
        D,
        want["sigma2"],
    )


def test_fitted_values(fitted):
    y = load(fitted.spec["dataset"])[fitted.spec["formula"].split("~")[0].strip()].to_numpy()[:10]
    sigma = np.sqrt(fitted.want["sigma2"])
    conditional = np.array(fitted.want["fitted_first10"])
    population = np.array(fitted.want["fitted_population_first10"])
    # nlme's have no process apart from measurement errors in them.
    found = fitted.fit.predict(level="conditional", residual="none")
    assert_close(np.asarray(found)[:10], conditional, 1e-6, sigma)
    resid = np.asarray(fitted.fit.residuals(level="population"))[:10]
    assert_close(resid, y - population, 1e-6, sigma)


# ---- one model in two spellings ----------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("case", "spelling", "parameter", "of_rho"),
    [
        ("ovary_car1", "SpatialPower('Time')", "rho(Time)", lambda rho: rho),
        ("ovary_car1", "SpatialExponential('Time')", "range(Time)", lambda rho: -1 / np.log(rho)),
        (
            "ovary_car1",
            "SpatialMatern('Time', nu=0.5)",
            "range(Time)",
            lambda rho: -1 / np.log(rho),
        ),
        (
            "bodyweight_exp_varpower",
            "SpatialExponential('Time') * VarPower('Time')",
            "range(Time)",
            lambda rho: -1 / np.log(rho),
        ),
    ],
)
def test_exponential_decay_in_other_words(fit_once, case, spelling, parameter, of_rho, method):
    spec = expected(case)
    want = spec["fits"][method]
    fit = fit_once(spec["dataset"], spec["formula"], method, residual=spelling)
    assert_close(fit.llf, want["loglik"], 1e-8)
    values = dict(zip(want["param_names"], want["param_values"], strict=True))
    value = of_rho(values["rho"])
    # rho of the mares is 2e-5 with a standard error of 5e-5: a steep function of the range.
    assert_close(fit.theta[parameter], value, 1e-6, max(abs(value), fit.theta_se[parameter]))
    assert_close(fit.theta["var(Residual)"], values["sigma2"], 1e-6)
