"""Standard errors of predictions beside Henderson's equations and SAS PROC MIXED."""

import numpy as np
import pandas as pd
import pytest
from peers import assert_close, expected, load, residual_from

import lmmfast as lf

pytestmark = pytest.mark.filterwarnings("ignore::lmmfast.errors.MissingRowsWarning")
PREDICTIONS = expected("predictions")
COLUMNS = {
    "se_population": ("population", "confidence"),
    "se_population_new_obs": ("population", "prediction"),
    "se_conditional": ("conditional", "confidence"),
    "se_conditional_new_obs": ("conditional", "prediction"),
}


@pytest.mark.parametrize("case", PREDICTIONS["cases"])
def test_errors_of_models_of_lme4(case, fit_once):
    want = PREDICTIONS["cases"][case]
    dataset = case.removesuffix("_ris").removesuffix("_ri").removesuffix("_factor")
    fit = fit_once(dataset, want["formula"], "REML")
    rows = load(dataset).head(len(want["population"]))
    for name, (level, interval) in COLUMNS.items():
        got = fit.predict(rows, level, interval=interval)
        assert_close(got["std_error"], want[name], 1e-8)
        assert_close(got["estimate"], want[level], 1e-8)
    (*_, column) = fit.spec.formula.group_columns
    if len(fit.nested_in) == 1:
        strangers = rows.assign(**{column: "nobody"})
        with pytest.warns(lf.NewGroupsWarning):
            got = fit.predict(strangers, "conditional", se=True)
        assert_close(got["std_error"], want["se_population_new_level"], 1e-8)


@pytest.fixture(scope="module")
def fev():
    data = load("fev")
    return data, data[data["FEV1"].notna()]


@pytest.mark.parametrize("case", PREDICTIONS["sas"])
def test_missed_visits_as_outp_of_sas(case, fev):
    """SAS stops early: ``tol`` is how far its numbers are from the optimum."""
    data, seen = fev
    want = PREDICTIONS["sas"][case]
    fit = lf.lmm("FEV1 ~ ARMCD", seen, groups="USUBJID", residual=residual_from(want["residual"]))
    keys = pd.MultiIndex.from_arrays([want["subject"], want["visit"]])
    rows = data.set_index(["USUBJID", "AVISIT"], drop=False).loc[keys]
    rows = rows.reset_index(drop=True)
    with pytest.warns(lf.NewGroupsWarning):  # subjects without any response
        got = fit.predict(rows, "conditional", residual="errors", interval="prediction")
    assert_close(got["estimate"], want["P"], want["tol"], np.abs(want["P"]))
    assert_close(got["std_error"], want["PSD"], want["tol"])
    means = fit.predict(rows, se=True)
    assert_close(means["estimate"], want["PM"], want["tol"])
    assert_close(means["std_error"], want["PMSD"], want["tol"])


def test_the_uncertainty_of_theta_as_kenward_roger_of_sas(fev):
    """SAS adds 2 g3 without a part of it, the projection in what beta and the weights share."""
    data, seen = fev
    want = PREDICTIONS["sas_kenward_roger_ar1"]
    fit = lf.lmm("FEV1 ~ ARMCD", seen, groups="USUBJID", residual=lf.AR1("AVISIT"))
    keys = pd.MultiIndex.from_arrays([want["subject"], want["visit"]])
    rows = data.set_index(["USUBJID", "AVISIT"], drop=False).loc[keys].reset_index(drop=True)
    plain, got = (
        fit.predict(rows, "conditional", residual="errors", se=True, uncertainty=uncertainty)
        for uncertainty in ("beta", "theta")
    )
    sas = np.array(want["PSD"]) ** 2 - plain["std_error"] ** 2
    assert_close(got["std_error"] ** 2 - plain["std_error"] ** 2, sas, 0.02)
    assert_close(got["std_error"], want["PSD"], 6e-5)
    ours = [
        sas_addition(fit, seen[seen["USUBJID"] == row["USUBJID"]], row)
        for _, row in rows.iterrows()
    ]
    assert_close(ours, sas, 4e-4)


def sas_addition(fit, own, row):
    """Twice the sum of W_kl [w_k'(V - X C X') w_l - 2 w_k'V_l V^-1 X C a], of AR(1)."""
    rho, variance = fit.theta
    J = fit._theta_jacobian
    W = J @ np.linalg.inv(fit._inference_totals.observed) @ J.T
    visit = own["AVISIT"].str[3:].astype(int).to_numpy()
    x = np.array([1.0, row["ARMCD"] == "TRT"])
    X = np.tile(x, (len(own), 1))

    def derivatives(lags):
        return variance * lags * rho ** np.maximum(lags - 1, 0), rho**lags

    lags = np.abs(visit[:, None] - visit)
    V, dV = variance * rho**lags, derivatives(lags)
    ahead = np.abs(visit - int(row["AVISIT"][3:]))
    inverse, C = np.linalg.inv(V), fit.cov_params().to_numpy()
    w = inverse @ (variance * rho**ahead)
    y = inverse @ X @ C @ (x - X.T @ w)
    d = [dc - one @ w for dc, one in zip(derivatives(ahead), dV, strict=True)]
    total = 0.0
    for k, j in np.ndindex(2, 2):
        of_beta = X.T @ inverse @ d[k], X.T @ inverse @ d[j]
        own_part = d[k] @ inverse @ d[j] - of_beta[0] @ C @ of_beta[1]
        total += 2 * W[k, j] * (own_part - 2 * d[k] @ inverse @ dV[j] @ y)
    return total
