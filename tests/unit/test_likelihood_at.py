"""The likelihood at any parameters, beside dense algebra and differences of itself."""

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import block_diag

import lmmfast as lf

MODELS = {
    "slopes": ("Reaction ~ Days + (Days | Subject)", {}),
    "diagonal": ("Reaction ~ Days + (Days || Subject)", {"weights": "w"}),
    "process": ("Reaction ~ Days", {"groups": "Subject", "residual": lf.OU("Days", nugget=True)}),
    "beside": ("Reaction ~ Days + (1 | Subject)", {"residual": lf.VarPower("w")}),
    "visits": ("Reaction ~ Days", {"groups": "Subject", "residual": lf.CompoundSymmetry()}),
}


@pytest.fixture(scope="module")
def data():
    d = lf.datasets.sleepstudy()
    d["w"] = 1.0 + 0.1 * np.arange(len(d)) % 1.7
    return d


def dense_loglik(fit, V, y, X, beta=None):
    """Log-likelihood at V, restricted if the fit is."""
    inverse = np.linalg.inv(V)
    S = X.T @ inverse @ X
    best = np.linalg.solve(S, X.T @ inverse @ y)
    r = y - X @ (best if beta is None else beta)
    value = np.linalg.slogdet(V)[1] + r @ inverse @ r + len(y) * np.log(2 * np.pi)
    if fit.method == "REML":
        value += np.linalg.slogdet(S)[1] - X.shape[1] * np.log(2 * np.pi)
    return -0.5 * value, best


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_value_and_derivatives(name, reml, data):
    formula, options = MODELS[name]
    fit = lf.lmm(formula, data, reml=reml, **options)
    theta = fit.theta * np.linspace(0.9, 1.1, len(fit.theta))
    beta = None if reml else fit.params.add([3.0, -0.5])
    here = fit.at(theta, beta)
    V = block_diag(*(here.V(group) for group in fit.group_labels))
    X = np.column_stack([np.ones(180), data["Days"]])
    want, best = dense_loglik(fit, V, data["Reaction"].to_numpy(), X, beta)
    assert here.llf == pytest.approx(want, rel=1e-11)
    if reml:
        np.testing.assert_allclose(here.beta, best, rtol=1e-10)

    def moved(values, name, step):
        return values.where(values.index != name, values + step)

    for parameter in theta.index:
        step = 1e-4 * theta[parameter]
        ends = [fit.at(moved(theta, parameter, s), beta).llf for s in (step, -step)]
        assert here.score[parameter] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-5)
    if not reml:
        for parameter in fit.x_names:
            ends = [fit.at(theta, moved(beta, parameter, s)).llf for s in (1e-3, -1e-3)]
            assert here.score[parameter] == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=1e-6)


@pytest.mark.parametrize("reml", [True, False])
def test_information_at_the_estimates(reml, data):
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data, reml=reml)
    here = fit.at()
    assert here.llf == pytest.approx(fit.llf, rel=1e-14)
    assert np.abs(here.score).max() < 1e-8
    for kind in ("expected", "observed"):
        information = here.information(kind)
        cov = pd.DataFrame(np.linalg.inv(information), information.index, information.index)
        np.testing.assert_allclose(
            np.sqrt(np.diag(cov.loc[fit.theta_names, fit.theta_names]))[-1],
            fit.conf_int_theta(information=kind).loc["var(Residual)", "std_error"],
            rtol=1e-4,
        )
    np.testing.assert_allclose(
        np.linalg.inv(here.information().loc[fit.x_names, fit.x_names]), fit.cov_params()
    )


def test_observed_information_is_minus_the_second_derivative(data):
    fit = lf.lmm("Reaction ~ Days + (1 | Subject)", data, reml=False)
    theta, beta = fit.theta * [1.2, 0.9], fit.params.add([2.0, 0.3])
    information = fit.at(theta, beta).information("observed")
    steps = {**dict.fromkeys(fit.x_names, 1e-3), **(1e-4 * theta).to_dict()}
    everything = pd.concat([beta, theta])
    for name, step in steps.items():
        ends = []
        for side in (step, -step):
            at = everything.where(everything.index != name, everything + side)
            ends.append(fit.at(at[theta.index], at[beta.index]).score)
        slope = (ends[0] - ends[1]) / (2 * step)
        size = np.sqrt(np.diag(information) * information.loc[name, name])
        assert (np.abs(information[name] + slope) < 1e-5 * size).all(), name


def test_several_factors():
    data = lf.datasets.multicentre()
    data = data[data["center"].isin(data["center"].unique()[:6])]
    formula = "sbp ~ month + arm + (1 | center/patient)"
    fit = lf.lmm(formula, data)
    other = lf.lmm(formula, data, engine="reference")
    theta = fit.theta * [1.1, 0.8, 1.05]
    assert fit.at(theta).llf == pytest.approx(other.at(theta).llf, rel=1e-11)
    np.testing.assert_allclose(fit.at(theta).score, other.at(theta).score, rtol=1e-7)


@pytest.mark.parametrize(
    ("theta", "beta", "error", "message"),
    [
        ([1.0], None, lf.DataError, "theta must be 2 finite numbers"),
        ([1.0, np.nan], None, lf.DataError, "theta must be 2 finite numbers"),
        ([1.0, -1.0], None, lf.DataError, "theta, its last entry, must be positive"),
        ([-1.0, 1.0], None, lf.DataError, "no covariance matrix"),
        ({"sigma": 1.0}, None, lf.DataError, "unknown: sigma"),
        ({"var(Residual)": 1.0}, None, lf.DataError, "missing: var"),
        ([1.0, 1.0], [1.0, 2.0, 3.0], lf.DataError, "beta must be 2 finite numbers"),
    ],
)
def test_what_is_refused(theta, beta, error, message, data):
    fit = lf.lmm("Reaction ~ Days + (1 | Subject)", data, reml=False)
    with pytest.raises(error, match=message):
        fit.at(theta, beta)


def test_refused_for_other_reasons(data):
    fit = lf.lmm("Reaction ~ Days + (1 | Subject)", data)
    with pytest.raises(lf.UnsupportedModelError, match="reml=False"):
        fit.at(fit.theta, fit.params)
    with pytest.raises(ValueError, match="'expected' or 'observed'"):
        fit.at().information("average")
    with pytest.raises(lf.DataError, match="need the data"):
        fit.remove_data().at()
