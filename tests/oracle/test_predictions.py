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
    """SAS adds 2 g3 and something of the size of 1 % of it, which is not documented."""
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
