"""R2, intraclass correlations, hat traces and conditional AIC beside dense algebra."""

import pickle

import numpy as np
import pandas as pd
import pytest
from dense_cases import CASES, marginal, nested, serial, slopes

import lmmfast as lf


@pytest.fixture(params=CASES)
def case(request):
    fit, _, model = CASES[request.param]()
    return fit, model


def test_hat_trace_and_conditional_aic(case):
    fit, model = case
    n = len(model.y)
    R = model.left(range(len(model.parts)), conditional=True)
    H = np.eye(n) - R @ model.P
    assert fit.hat_trace == pytest.approx(np.trace(H), rel=1e-7)
    e = model.y - H @ model.y
    np.testing.assert_allclose(fit.resid, e, rtol=1e-6, atol=1e-8)
    loglik = -0.5 * (n * np.log(2 * np.pi) + np.linalg.slogdet(R)[1] + e @ np.linalg.solve(R, e))
    n_residual = len(fit.theta) - sum(len(part) > 0 for part in model.parts)
    if len(fit.theta) == 4 and len(model.parts) == 1:  # an unstructured D of two effects
        n_residual = len(fit.theta) - 3
    if model.errors is not None:
        n_residual = 1
    assert fit.caic == pytest.approx(-2 * loglik + 2 * (np.trace(H) + n_residual), rel=1e-8)


def test_r2(case):
    fit, model = case
    fixed = np.var(model.X @ model.beta, ddof=1)
    random = sum(np.trace(part) for part in model.parts) / len(model.y)
    rest = np.trace(model.R) / len(model.y)
    total = fixed + random + rest
    np.testing.assert_allclose(
        fit.r2(), [fixed / total, (fixed + random) / total], rtol=1e-7, atol=1e-12
    )


def test_of_sleepstudy_as_performance_prints():
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    assert fit.r2().round(3).to_list() == [0.279, 0.799]
    assert fit.icc().loc["Subject", "estimate"] == pytest.approx(0.722, abs=5e-4)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("marginal", "process")])
def test_icc_errors_by_the_delta_method(name):
    """Beside numeric derivatives by theta of the same ratio."""
    fit, _, model = CASES[name]()
    table = fit.icc()
    np.testing.assert_allclose(table["estimate"], fit.variance_partition()["icc"].dropna())
    known = fit.theta.to_numpy()
    means = ratios(fit, model, known)
    np.testing.assert_allclose(table["estimate"], means, rtol=1e-6)
    J = []
    for k in range(len(known)):
        step = np.zeros(len(known))
        step[k] = 1e-6 * max(abs(known[k]), 1e-3)
        J.append(
            (ratios(fit, model, known + step) - ratios(fit, model, known - step)) / (2 * step[k])
        )
    J = np.array(J).T
    observed = fit._inference_totals.observed
    T = fit._theta_jacobian
    cov = J @ T @ np.linalg.inv(observed) @ T.T @ J.T
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(cov)), rtol=1e-5)
    logit, half = np.log(means / (1 - means)), 1.959964 * table["std_error"] / (means * (1 - means))
    np.testing.assert_allclose(table["conf_low"], 1 / (1 + np.exp(half - logit)), rtol=1e-5)
    np.testing.assert_allclose(table["conf_high"], 1 / (1 + np.exp(-half - logit)), rtol=1e-5)


def ratios(fit, model, theta):
    """Intraclass correlations at other variance parameters (of the models of `CASES`)."""
    own = fit.theta.to_numpy()
    if len(theta) == 4 and len(model.parts) == 1:
        D = np.array([[theta[0], theta[1]], [theta[1], theta[2]]])
        random = [np.einsum("ij,jk,ik->i", model.X, D, model.X).mean()]
    else:
        random = [
            np.trace(part) / len(model.y) * theta[k] / own[k] for k, part in enumerate(model.parts)
        ]
    rest = np.trace(model.R) / len(model.y) * theta[-1] / own[-1]
    total = sum(random) + rest
    names = [term.group for term in fit.terms]
    inside = [
        sum(random[names.index(other)] for other in [name, *fit.nested_in[name]]) for name in names
    ]
    return np.array(inside) / total


def test_variances_by_group_have_derivatives_too():
    data = lf.datasets.orthodont()
    by_sex = lf.ByGroup("Sex")
    fit = lf.lmm("distance ~ age + (1 | Subject)", data, residual=by_sex)
    table, theta = fit.icc(), fit.theta
    share = (data["Sex"] == "Male").mean()
    male = theta.index[theta.index.str.contains("Male") & theta.index.str.startswith("var(Res")]
    female = theta.index[theta.index.str.contains("Female")]
    assert len(male) == len(female) == 1
    residual = share * theta[male[0]] + (1 - share) * theta[female[0]]
    total = theta.iloc[0] + residual
    assert table["estimate"].item() == pytest.approx(theta.iloc[0] / total)
    J = pd.Series(0.0, theta.index)
    J.iloc[0] = residual / total**2
    J[male[0]] = -theta.iloc[0] * share / total**2
    J[female[0]] = -theta.iloc[0] * (1 - share) / total**2
    T = fit._theta_jacobian
    cov = T @ np.linalg.inv(fit._inference_totals.observed) @ T.T
    assert table["std_error"].item() == pytest.approx(np.sqrt(J @ cov @ J), rel=1e-6)


def test_on_the_boundary_and_without_random_effects():
    flat = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff2())
    assert flat.icc()["estimate"].item() == 0
    assert flat.icc()["std_error"].isna().all()
    np.testing.assert_allclose(flat.r2(), [0, 0], atol=1e-12)
    assert flat.hat_trace == pytest.approx(1)
    fit, _, _ = marginal()
    assert len(fit.icc()) == 0
    assert fit.hat_trace == pytest.approx(len(fit.params))
    assert fit.r2()["marginal"] == pytest.approx(fit.r2()["conditional"])


def test_units_do_not_matter():
    data = lf.datasets.sleepstudy()
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    scaled = data.assign(Reaction=1000 * data["Reaction"], Days=data["Days"] * 24 + 1e4)
    other = lf.lmm("Reaction ~ Days + (Days | Subject)", scaled)
    np.testing.assert_allclose(other.r2(), fit.r2(), rtol=1e-6)
    assert other.hat_trace == pytest.approx(fit.hat_trace, rel=1e-6)
    difference = 2 * len(data) * np.log(1000)
    assert other.caic - fit.caic == pytest.approx(difference, rel=1e-6)
    np.testing.assert_allclose(other.icc(), fit.icc(), rtol=1e-4)


def test_fits_without_rows():
    for fit in (slopes()[0], nested()[0], serial()[0]):
        bare = pickle.loads(pickle.dumps(fit))
        for ask in (
            bare.r2,
            bare.icc,
            lambda bare=bare: bare.caic,
            lambda bare=bare: bare.hat_trace,
        ):
            with pytest.raises(lf.DataError, match="need the data"):
                ask()
