"""``Residual`` is one thing: scale, sigma, varcorr, theta, tables and JSON agree."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.cli import as_json
from lmmfast.errors import LmmWarning


def cauchy(psi, values):
    """1 / (1 + d^2 / exp(psi)^2) and its derivative."""
    scaled = np.subtract.outer(values[:, 0], values[:, 0]) ** 2 * np.exp(-2 * psi[0])
    return 1 / (1 + scaled), (2 * scaled / (1 + scaled) ** 2)[None]


RESIDUALS = {
    "independent": None,
    "by group": lf.ByGroup("Sex"),
    "power": lf.VarPower("age"),
    "exponent": lf.VarExp("age"),
    "power by group": lf.VarPower("age") * lf.ByGroup("Sex"),
    "AR(1)": lf.AR1("visit"),
    "AR(1) by group": lf.AR1("visit", by="Sex"),
    "compound symmetry by visit": lf.HeterogeneousCS("visit"),
    "unstructured": lf.Unstructured("visit"),
    "OU": lf.OU("age"),
    "OU with nugget": lf.OU("age", nugget=True),
    "OU with nugget by group": lf.OU("age", nugget=True, by="Sex"),
    "spatial with nugget": lf.SpatialExponential("age", nugget=True),
    "nugget times groups": lf.OU("age", nugget=True) * lf.ByGroup("Sex"),
    "nugget by group times visits": lf.OU("age", nugget=True, by="Sex") * lf.ByGroup("visit"),
    "nugget times power": lf.OU("age", nugget=True) * lf.VarPower("age"),
    "homogeneous compound symmetry, alone": lf.CompoundSymmetry(),
    "homogeneous compound symmetry by group, alone": lf.CompoundSymmetry(by="Sex"),
    "Toeplitz, alone": lf.Toeplitz("visit"),
    "banded Toeplitz": lf.Toeplitz("visit", bands=2),
    "heterogeneous Toeplitz, alone": lf.HeterogeneousToeplitz("visit"),
    "ante-dependence, alone": lf.Antedependence("visit"),
    "heterogeneous ante-dependence, alone": lf.HeterogeneousAntedependence("visit"),
    "heterogeneous AR(1), alone": lf.HeterogeneousAR1("visit"),
    "heterogeneous AR(1) by group, alone": lf.HeterogeneousAR1("visit", by="Sex"),
    "spatial exponential": lf.SpatialExponential("age"),
    "spatial Gaussian with nugget": lf.SpatialGaussian("age", nugget=True),
    "spatial spherical": lf.SpatialSpherical("age"),
    "spatial power": lf.SpatialPower("age"),
    "spatial Matern": lf.SpatialMatern("age", nu=1.5),
    "custom": lf.CustomCorrelation("age", function=cauchy, start=[0.0], names=["log_range"]),
    "custom with nugget": lf.CustomCorrelation(
        "age", function=cauchy, start=[0.0], names=["log_range"], nugget=True
    ),
}


@pytest.fixture(scope="module")
def skulls():
    d = lf.datasets.orthodont()
    return d.assign(visit=((d["age"] - 6) // 2).astype(int))


@pytest.fixture(params=RESIDUALS, scope="module")
def fit(request, skulls):
    residual = RESIDUALS[request.param]
    alone = any(word in request.param for word in ("nugget", "compound", "unstructured", "alone"))
    formula = "distance ~ age * Sex" + ("" if alone else " + (1 | Subject)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lf.lmm(
            formula, skulls, groups="Subject" if alone else None, residual=residual, max_iter=400
        )


def test_one_meaning(fit):
    listed = fit.varcorr.to_frame()
    own = listed[listed["group"].str.startswith("Residual")].set_index("group")
    assert fit.scale == own["vcov"].iloc[0] == fit.varcorr.scale
    assert fit.sigma == np.sqrt(fit.scale) == fit.varcorr.sigma
    table = fit.variance_table()
    summary = fit.summary().tables
    for name, variance in own["vcov"].items():
        assert table.loc[f"var({name})", "estimate"] == pytest.approx(variance, rel=1e-12)
        if f"var({name})" in fit.theta:
            assert fit.theta[f"var({name})"] == pytest.approx(variance, rel=1e-12)
    pd.testing.assert_frame_equal(
        summary["random_effects"].set_index("group")[["vcov", "sdcor"]],
        listed.set_index("group")[["vcov", "sdcor"]],
    )
    document = as_json(fit, "f")
    assert json.loads(json.dumps(document))["scale"] == fit.scale
    assert document["theta"] == fit.theta.to_dict()
    for name in ("llf", "nobs", "aic", "bic", "deviance"):
        assert document[name] == getattr(fit, name)
        assert summary["model"].loc[name, "value"] == getattr(fit, name)
    assert not {"loglik", "n_obs", "n_groups"} & {*document, *summary["model"].index}


def test_tidy_is_the_coefficients_of_all_tables(fit):
    tidy = fit.tidy()
    assert list(tidy.index) == list(fit.params.index)
    np.testing.assert_array_equal(tidy["estimate"], fit.params)
    np.testing.assert_array_equal(tidy["std_error"], fit.bse)
    np.testing.assert_array_equal(tidy["p_value"], fit.pvalues)
    np.testing.assert_array_equal(tidy[["conf_low", "conf_high"]], fit.conf_int())
    pd.testing.assert_frame_equal(fit.summary().tables["fixed_effects"], tidy)


def test_measurement_error_and_process_are_the_total(fit, skulls):
    """What V has on its diagonal, without random effects, and what of it is no correlation."""
    table = fit.variance_table()["estimate"]
    totals = [name for name in table.index if name.startswith("var(Total")]
    if not str(fit.residual).count("nugget=True"):
        assert not totals
        return
    group = "F01"
    V = fit.implied_covariance(group).to_numpy()
    C = V / np.sqrt(np.outer(np.diag(V), np.diag(V)))
    nugget = 1 - fit.scale / (table[totals[0]])
    assert 0 <= nugget <= 1
    if "visit" not in str(fit.residual) and "VarPower" not in str(fit.residual):
        assert V[0, 0] == pytest.approx(table[totals[0]], rel=1e-9)  # F01 has the first level
        # What is missing at distance zero, from correlations at distances 2 and 4.
        if "Gaussian" in str(fit.residual):  # exp(-(d / range)^2)
            known = (C[0, 1] ** 4 / C[0, 2]) ** (1 / 3)
        elif "Custom" in str(fit.residual):
            known = C[0, 1] * (1 + 4 * np.exp(-2 * fit.theta["log_range"]))
        else:  # exp(-d / range)
            known = C[0, 1] ** 2 / C[0, 2]
        assert known == pytest.approx(nugget, rel=1e-6)


def test_standard_errors_of_the_total_by_the_delta_method(skulls):
    fit = lf.lmm(
        "distance ~ age * Sex", skulls, groups="Subject", residual=RESIDUALS["OU with nugget"]
    )
    cov = fit.theta_cov.loc[["var(OU|age)", "var(Residual)"], ["var(OU|age)", "var(Residual)"]]
    table = fit.variance_table()
    assert table.loc["var(Total)", "estimate"] == pytest.approx(
        fit.theta["var(OU|age)"] + fit.theta["var(Residual)"], rel=1e-12
    )
    assert table.loc["var(Total)", "std_error"] == pytest.approx(
        np.sqrt(cov.to_numpy().sum()), rel=1e-8
    )


def test_printed(skulls):
    fit = lf.lmm(
        "distance ~ age * Sex", skulls, groups="Subject", residual=RESIDUALS["OU with nugget"]
    )
    assert "var(Total)" in str(fit.summary())
    by = lf.lmm("distance ~ age + (1 | Subject)", skulls, residual=RESIDUALS["by group"])
    text = str(by.summary())
    assert "Residual|Female" in text and "Residual|Male" in text


def test_theta_is_a_start(fit, skulls):
    if "nugget" not in str(fit.residual):
        return
    start = fit.refit(fit._design.batch(slice(None)).as_float().y, start=fit.theta.to_numpy())
    assert start.llf == pytest.approx(fit.llf, abs=1e-6)
