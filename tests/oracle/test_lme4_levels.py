"""Several grouping factors, nested and crossed, beside lme4 and nlme.

levels.R says how the numbers were made. InstEval has a model that is too large for a dense
evaluation: there lme4's optimum alone was polished.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from peers import (
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

import lmmfast

CASES = expected("levels")["cases"]
CROSSED = {case for case, spec in CASES.items() if spec["dataset"] in ("ratings", "schools")}


def engines_of(case):
    if CASES[case]["residual"] is not None:
        return ("nested",)
    return ("crossed",) if case in CROSSED else ("nested", "crossed")


FITS = [
    (case, method, engine) for case in CASES for method in METHODS for engine in engines_of(case)
]
INSIDE = [key for key in FITS if not CASES[key[0]]["fits"][key[1]]["on_boundary"]]


@pytest.fixture(scope="module", params=FITS, ids="-".join)
def fitted(request, fit_once):
    return make_fitted(*request.param, fit_once)


@pytest.fixture(scope="module", params=INSIDE, ids="-".join)
def inside(request, fit_once):
    return make_fitted(*request.param, fit_once)


def make_fitted(case, method, engine, fit_once):
    spec = CASES[case]
    names = ("weights", "offset", "residual")
    options = {name: spec[name] for name in names if spec[name] is not None}
    want = spec["fits"][method]
    return SimpleNamespace(
        fit=fit_once(spec["dataset"], spec["formula"], method, engine, **options),
        want=want,
        spec=spec,
        D={group: np.array(g["cov"], dtype=float) for group, g in want["groups"].items()},
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
    assert_variance_components(fitted.fit, fitted.D, fitted.want["sigma2"])


def test_theta(inside):
    cov = np.linalg.inv(inside.want["info_expected"])
    se, values = np.sqrt(np.diag(cov)), np.array(inside.want["theta"])
    assert_close(inside.fit.theta, values, 1e-6, np.maximum(np.abs(values), se))
    assert_close(inside.fit.theta_cov, cov, 1e-5, scale_of_cov(cov))


def test_random_effects(fitted):
    fit, want = fitted.fit, fitted.want
    effects = by_group(fit, fit.random_effects)
    assert list(effects) == list(want["groups"])
    for group, g in want["groups"].items():
        assert list(effects[group].columns) == [formulaic_name(name, {}) for name in g["names"]]
        assert len(effects[group]) == g["n_levels"]
        assert_random_effects(
            fit, g["levels"], g["blup"], g["cond_var"], fitted.D[group], want["sigma2"], group
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


# ---- InstEval: 2,972 students, 1,128 lecturers, 14 departments -----------------------------------

INSTEVAL = expected("insteval")["cases"]
DEVIANCES = {"three_factors": 237721.768775, "two_factors": 237585.553415}


@pytest.fixture(scope="module", params=INSTEVAL)
def insteval(request, fit_once):
    spec = INSTEVAL[request.param]
    fit = fit_once("insteval", spec["formula"], "ML")
    return SimpleNamespace(fit=fit, want=spec, deviance=DEVIANCES[request.param])


def test_insteval_deviance(insteval):
    fit, want = insteval.fit, insteval.want
    assert fit.engine == "crossed"
    assert fit.converged
    assert fit.nobs == 73421
    assert by_group(fit, fit.ngroups) == {g: of["n_levels"] for g, of in want["groups"].items()}
    assert_close(fit.deviance, insteval.deviance, 1e-10)
    assert_close(fit.deviance, want["deviance"], 1e-11)


def test_insteval_estimates(insteval):
    fit, want = insteval.fit, insteval.want
    assert_fixed_effects(fit, want, want["columns"])
    assert_variance_components(
        fit, {g: np.array(of["cov"]) for g, of in want["groups"].items()}, want["sigma2"]
    )
    for group, of in want["groups"].items():
        assert_random_effects(
            fit, of["levels"], of["blup"], of["cond_var"], of["cov"], want["sigma2"], group
        )


# ---- one model in two spellings ----------------------------------------------------------------

SAME = {
    "a slash is two bars": (
        "trial",
        "y ~ t * arm + (1 + t | center/patient)",
        "y ~ t * arm + (1 + t | center) + (1 + t | center:patient)",
    ),
    "the order of crossed bars": (
        "ratings",
        "y ~ x + (1 + x | user) + (1 | item)",
        "y ~ x + (1 | item) + (1 + x | user)",
    ),
    "|| is two bars": (
        "trial",
        "y ~ t * arm + (1 + t || center) + (1 + t || center:patient)",
        "y ~ t * arm + (1 | center) + (0 + t | center) + diag(1 + t | center:patient)",
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", SAME)
def test_same_model_in_two_spellings(fit_once, what, method):
    dataset, one, other = SAME[what]
    assert_same_fit(fit_once(dataset, one, method), fit_once(dataset, other, method))


def assert_same_fit(one, other):
    assert_close(one.llf, other.llf, 1e-10)
    assert_close(one.params, other.params, 1e-6, np.asarray(other.bse))
    assert_close(one.scale, other.scale, 1e-6)
    for group, effects in other.random_effects.items():
        D = other.varcorr[group].cov.to_numpy()
        assert_close(one.varcorr[group].cov, D, 1e-6, scale_of_cov(D))
        assert_close(one.random_effects[group], effects, 1e-6, np.sqrt(np.diag(D)))


@pytest.mark.parametrize("method", METHODS)
def test_inner_labels_of_their_own_need_no_outer_ones(method):
    """cd4_sim: no patient's label is used in two centres, so (1 | patient) is nested as it is."""
    data, want = load("cd4_sim"), expected("cd4_sim")["fits"][method]
    fit = lmmfast.lmm(
        "sqrtcd4 ~ trt * time + sex + (1 | center) + (1 | patient)", data, reml=method == "REML"
    )
    assert fit.engine == "nested"
    assert_close(fit.llf, want["loglik"], 1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_rows_in_any_order(fit_once, method):
    spec = CASES["nested_in_crossed"]
    data = load("schools")
    shuffled = data.sample(frac=1.0, random_state=1)
    fit = lmmfast.lmm(spec["formula"], shuffled, reml=method == "REML")
    assert_same_fit(fit, fit_once("schools", spec["formula"], method))


@pytest.mark.parametrize("method", METHODS)
def test_from_arrays(method):
    data, want = load("ratings"), CASES["crossed_weights_offset"]["fits"][method]
    x = data["x"].to_numpy()
    Z = np.column_stack([np.ones_like(x), x])
    fit = lmmfast.fit(
        data["y"].to_numpy(),
        Z,
        groups=[data["user"].to_numpy(), data["item"].to_numpy()],
        Z=[Z, None],
        weights=data["w"].to_numpy(),
        offset=data["o"].to_numpy(),
        reml=method == "REML",
    )
    assert_close(fit.llf, want["loglik"], 1e-8)
    assert_close(fit.scale, want["sigma2"], 1e-6)
