"""Residual structures beside nlme's and glmmTMB's numbers that residuals.R made."""

from types import SimpleNamespace

import numpy as np
import pytest
from peers import METHODS, assert_close, assert_fixed_effects, expected, load, scale_of_cov

import lmmfast

CASES = tuple(expected("residuals")["cases"])
MARKOV = (
    "ar1_negative_gaps",
    "ar1_weights",
    "arh1_gaps",
    "car1_bodyweight",
    "exponential_ovary",
    "ou_nugget_intercept",
    "ar1_intercept",
    "ar1_by_group_intercept",
    "ar1_by_group_power_intercept",
)


# The others take seconds by plain NumPy; the contract tests compare all engines.
REFERENCE = (
    "cs_negative_dyestuff2",
    "cs_negative_steps",
    "csh_gaps",
    "ar1_negative_gaps",
    "banded_steps",
    "car1_bodyweight",
    "exponential_ovary",
    "by_group",
    "power",
    "expon",
)


def engines(case):
    markov = ("markov",) if case in MARKOV else ()
    reference = ("reference",) if case in REFERENCE else ()
    return ("dense", *markov, *reference)


FITS = [(case, method, engine) for case in CASES for method in METHODS for engine in engines(case)]
WITH_RANDOM_EFFECTS = [
    key for key in FITS if "ranef" in expected("residuals")["cases"][key[0]]["fits"][key[1]]
]


@pytest.fixture(scope="module", params=FITS, ids="-".join)
def fitted(request, fit_once):
    return make_fitted(*request.param, fit_once)


@pytest.fixture(scope="module", params=WITH_RANDOM_EFFECTS, ids="-".join)
def with_random_effects(request, fit_once):
    return make_fitted(*request.param, fit_once)


def make_fitted(case, method, engine, fit_once):
    spec = expected("residuals")["cases"][case]
    options = {"residual": spec["residual"]}
    if "|" not in spec["formula"]:
        options["groups"] = spec["groups"]
    if spec["weights"] is not None:
        options["weights"] = spec["weights"]
    return SimpleNamespace(
        fit=fit_once(spec["dataset"], spec["formula"], method, engine, **options),
        want=spec["fits"][method],
        spec=spec,
        engine=engine,
    )


def test_cases_are_there():
    """Every kind of structure that nlme and glmmTMB have, each by ML and REML."""
    assert len(CASES) >= 25
    spelled = " ".join(case["residual"] for case in expected("residuals")["cases"].values())
    for structure in (
        "ByGroup VarPower VarExp CompoundSymmetry HeterogeneousCS AR1 HeterogeneousAR1 OU Toeplitz "
        "HeterogeneousToeplitz Unstructured SpatialExponential SpatialGaussian SpatialMatern "
        "ARMA11 SpatialSpherical SpatialLinear SpatialRationalQuadratic nugget"
    ).split():
        assert structure in spelled


def test_loglik(fitted):
    fit, want = fitted.fit, fitted.want
    assert fit.converged
    assert fit.engine == fitted.engine
    assert fit.nobs == fitted.spec["n_obs"]
    assert_close(fit.llf, want["loglik"], 1e-8)
    assert_close(fit.aic, want["AIC"], 1e-8)
    assert_close(fit.bic, want["BIC"], 1e-8)


def test_fixed_effects(fitted):
    assert_fixed_effects(fitted.fit, fitted.want, fitted.spec["columns"])


def test_theta(fitted):
    names = list(fitted.want["theta"])
    values = np.array(list(fitted.want["theta"].values()))
    cov = np.linalg.inv(fitted.want["info_expected"])
    se = np.sqrt(np.diag(cov))
    assert sorted(fitted.fit.theta.index) == sorted(names)
    assert_close(fitted.fit.theta[names], values, 1e-6, np.maximum(np.abs(values), se))
    assert_close(fitted.fit.theta_se[names], se, 1e-5)
    assert_close(fitted.fit.theta_cov.loc[names, names], cov, 1e-5, scale_of_cov(cov))


def test_random_effects(with_random_effects):
    fit, want = with_random_effects.fit, with_random_effects.want
    ranef, sd = want["ranef"], np.sqrt(next(iter(want["theta"].values())))
    effects = fit.random_effects
    assert [str(level) for level in effects.index] == ranef["levels"]
    assert_close(effects.to_numpy()[:, 0], ranef["blup"], 1e-6, sd)
    assert_close(np.asarray(fit.random_effects_cov)[:, 0, 0], ranef["cond_var"], 1e-6)


@pytest.mark.parametrize("case", CASES)
def test_no_peer_found_a_better_optimum(case):
    """glmmTMB's residual variance is tiny where it should be none: some 1e-6 are its own doing."""
    spec = expected("residuals")["cases"][case]
    for fit in spec["fits"].values():
        assert fit["polished_score_norm"] < 1e-10
        for command, loglik in zip(spec["commands"], fit["peer_loglik"], strict=True):
            slack = 1e-5 if command.startswith("glmmTMB") else 1e-9 * abs(fit["loglik"])
            assert loglik <= fit["loglik"] + slack
            assert loglik >= fit["loglik"] - 1e-6


def test_a_maximum_at_a_kink_is_not_certified():
    """nlme ends with "false convergence": the score jumps where the range passes a distance."""
    residual = lmmfast.SpatialLinear("t", nugget=True)
    with pytest.warns(lmmfast.ConvergenceWarning, match="not converged"):
        fit = lmmfast.lmm("y ~ trt * t", load("ou_sim"), groups="id", residual=residual, reml=False)
    assert not fit.converged
    assert fit.llf == pytest.approx(-637.2053, abs=1e-3)


@pytest.mark.parametrize(
    ("method", "loglik"), [("ML", -456.752209404376), ("REML", -458.301215103322)]
)
def test_arma_at_the_end_of_its_moving_average(fit_once, method, loglik):
    """nlme comes near the end, theta = -0.9998: a likelihood lower by 1e-10 relative."""
    fit = fit_once(
        "ovary_steps", "step ~ sin1 + cos1", method, groups="Mare", residual="ARMA11('Index')"
    )
    assert "the moving average over Index is at the end of its range" in str(fit.certificate)
    assert 0 < fit.llf - loglik < 1e-9 * abs(loglik)
    rho, gamma = fit.theta["rho(Index)"], fit.theta["gamma(Index)"]
    assert gamma == pytest.approx(-(1 - rho) / 2, rel=1e-7)
    assert np.isnan(fit.theta_se["gamma(Index)"])
