"""Structures of D, known weights, offsets, grouping by a:b, beside nlme, lme4 and glmmTMB.

structures.R says how the numbers were made. Some of these models are others in disguise, too: the
tests at the end need no numbers of a peer.
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
    expected,
    load,
    plain_words,
    scale_of_cov,
)

import lmmfast

CASES = tuple(expected("structures")["cases"])


FITS = [(case, method, engine) for case in CASES for method in METHODS for engine in ENGINES]
# Inside the cone, and the peer's parameters are variances and covariances.
WITH_THETA = [
    key for key in FITS if "theta" in expected("structures")["cases"][key[0]]["fits"][key[1]]
]


@pytest.fixture(scope="module", params=FITS, ids="-".join)
def fitted(request, fit_once):
    return make_fitted(*request.param, fit_once)


@pytest.fixture(scope="module", params=WITH_THETA, ids="-".join)
def with_theta(request, fit_once):
    return make_fitted(*request.param, fit_once)


def make_fitted(case, method, engine, fit_once):
    spec = expected("structures")["cases"][case]
    options = {key: spec[key] for key in ("weights", "offset") if spec[key] is not None}
    return SimpleNamespace(
        fit=fit_once(spec["dataset"], spec["formula"], method, engine, **options),
        want=spec["fits"][method],
        spec=spec,
    )


def test_loglik(fitted):
    fit, want = fitted.fit, fitted.want
    assert fit.converged
    assert_close(fit.llf, want["loglik"], 1e-8)
    assert_close(fit.aic, want["AIC"], 1e-8)
    assert_close(fit.bic, want["BIC"], 1e-8)


def test_fixed_effects(fitted):
    assert_fixed_effects(fitted.fit, fitted.want, fitted.spec["columns"])


def test_variance_components(fitted):
    assert_variance_components(fitted.fit, fitted.want["D"], fitted.want["sigma2"])


def test_theta(with_theta):
    cov = np.linalg.inv(with_theta.want["info_expected"])
    se, values = np.sqrt(np.diag(cov)), np.array(with_theta.want["theta"])
    assert_close(with_theta.fit.theta, values, 1e-6, np.maximum(np.abs(values), se))
    assert_close(with_theta.fit.theta_cov, cov, 1e-5, scale_of_cov(cov))


def test_random_effects(fitted):
    want, ranef = fitted.want, fitted.want["ranef"]
    assert_random_effects(
        fitted.fit,
        ranef["levels"],
        ranef["blup"],
        ranef["cond_var"],
        want["D"],
        want["sigma2"],
    )


def test_population_values(fitted):
    """y minus the population residual: the fixed part and the offset."""
    data = load(fitted.spec["dataset"])
    y = data[fitted.spec["formula"].split("~")[0].strip()].to_numpy()[:10]
    eta = y - np.asarray(fitted.fit.residuals(level="population"))[:10]
    want = fitted.want["fitted_population_first10"]
    assert_close(eta, want, 1e-6, np.sqrt(fitted.want["sigma2"]))


def test_boundary_is_said_in_words(fitted):
    assert ("boundary" in plain_words(fitted.fit)) == fitted.want["on_boundary"]


# ---- one model in two spellings ----------------------------------------------------------------

AGE = "distance ~ age * Sex"
Z = "1 + I(age - 11)"
SAME = {
    "cs of two effects is unstructured": (
        "orthodont",
        f"{AGE} + cs({Z} | Subject)",
        f"{AGE} + ({Z} | Subject)",
    ),
    "us() is the plain bar": (
        "orthodont",
        f"{AGE} + us({Z} | Subject)",
        f"{AGE} + ({Z} | Subject)",
    ),
    "|| is diag()": ("orthodont", f"{AGE} + ({Z} || Subject)", f"{AGE} + diag({Z} | Subject)"),
    "diag(hom=TRUE) is identity()": (
        "orthodont",
        f"{AGE} + diag({Z} | Subject, hom=TRUE)",
        f"{AGE} + identity({Z} | Subject)",
    ),
    "two terms are ||": (
        "sleepstudy",
        "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
        "Reaction ~ Days + (Days || Subject)",
    ),
}


def assert_same_fit(one, other):
    assert_close(one.llf, other.llf, 1e-10)
    assert_close(one.params, other.params, 1e-6, np.asarray(other.bse))
    assert_close(one.cov_params(), other.cov_params(), 1e-6, scale_of_cov(other.cov_params()))
    D = other.cov_re.to_numpy()
    assert_close(one.cov_re, D, 1e-6, scale_of_cov(D))
    assert_close(one.scale, other.scale, 1e-6)
    assert_close(one.random_effects, other.random_effects, 1e-6, np.sqrt(np.diag(D)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", SAME)
def test_same_model_in_two_spellings(fit_once, what, method):
    dataset, one, other = SAME[what]
    assert_same_fit(fit_once(dataset, one, method), fit_once(dataset, other, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("structure", "case"),
    [
        (lmmfast.D.identity, "identity_orthodont"),
        (lmmfast.D.diag, "diag_orthodont"),
    ],
)
def test_structure_given_as_an_argument(structure, case, method):
    """``D=`` in place of the formula's spelling, and from arrays."""
    want = expected("structures")["cases"][case]["fits"][method]
    data = load("orthodont")
    reml = method == "REML"
    by_formula = lmmfast.lmm(f"{AGE} + ({Z} | Subject)", data, reml=reml, D=structure())
    assert_close(by_formula.llf, want["loglik"], 1e-8)
    age = data["age"].to_numpy(dtype=float)
    male = (data["Sex"] == "Male").to_numpy(dtype=float)
    ones = np.ones_like(age)
    by_arrays = lmmfast.fit(
        data["distance"].to_numpy(),
        np.column_stack([ones, age, male, age * male]),
        data["Subject"].to_numpy(),
        Z=np.column_stack([ones, age - 11.0]),
        reml=reml,
        D=structure(),
    )
    assert_close(by_arrays.llf, want["loglik"], 1e-8)
    assert_variance_components(by_arrays, want["D"], want["sigma2"])


@pytest.mark.parametrize("method", METHODS)
def test_homogeneous_compound_symmetry_given_as_an_argument(method):
    want = expected("structures")["cases"]["cs_hom_pastes"]["fits"][method]
    fit = lmmfast.lmm(
        "strength ~ 1 + (0 + cask | batch)",
        load("pastes"),
        reml=method == "REML",
        D=lmmfast.D.cs(hom=True),
    )
    assert_close(fit.llf, want["loglik"], 1e-8)
    assert_variance_components(fit, want["D"], want["sigma2"])


@pytest.mark.parametrize("method", METHODS)
def test_weights_and_offset_as_arrays_or_columns(fit_once, method):
    data = load("sleepstudy")
    formula = "Reaction ~ Days + (Days || Subject)"
    by_name = fit_once("sleepstudy", formula, method, weights="w", offset="o")
    by_array = lmmfast.lmm(
        formula,
        data[["Reaction", "Days", "Subject"]],
        reml=method == "REML",
        weights=data["w"].to_numpy(),
        offset=data["o"].to_numpy(),
    )
    assert_same_fit(by_array, by_name)


@pytest.mark.parametrize("method", METHODS)
def test_scaling_the_weights_scales_the_residual_variance_only(fit_once, method):
    data = load("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    fit = fit_once("sleepstudy", formula, method, weights="w")
    scaled = lmmfast.lmm(
        formula, data.assign(w=7.0 * data["w"]), reml=method == "REML", weights="w"
    )
    assert_close(scaled.llf, fit.llf, 1e-10)
    assert_close(scaled.scale, 7.0 * fit.scale, 1e-6)
    assert_close(scaled.cov_re, fit.cov_re, 1e-6, scale_of_cov(fit.cov_re))
    assert_close(scaled.params, fit.params, 1e-6)
