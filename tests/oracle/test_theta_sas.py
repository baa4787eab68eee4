"""Standard errors of variance parameters beside SAS's COVTEST: observed information."""

import numpy as np
import pandas as pd
import pytest
from peers import assert_close, expected, load

import lmmfast as lf

pytestmark = pytest.mark.filterwarnings("ignore::lmmfast.errors.MissingRowsWarning")

CASES = expected("sas_covtest")["cases"]
STRUCTURES = {
    "un": lf.Unstructured("AVISIT"),
    "ar1": lf.AR1("AVISIT"),
    "csh": lf.HeterogeneousCS("AVISIT"),
    "arh1": lf.HeterogeneousAR1("AVISIT"),
}


@pytest.mark.parametrize("name", CASES)
def test_as_covtest(name):
    """The same parameters: variances, covariances and correlations; matched by their values."""
    case = CASES[name]
    residual, reml = STRUCTURES[case["structure"]], case["method"] == "REML"
    fit = lf.lmm(case["formula"], load("fev"), groups="USUBJID", residual=residual, reml=reml)
    table = fit.conf_int_theta()
    assert len(table) == len(case["parameters"])
    for parameter in case["parameters"]:
        near = np.argmin(np.abs(table["estimate"].to_numpy() - parameter["estimate"]))
        row = table.iloc[near]
        assert_close(row["estimate"], parameter["estimate"], 1e-6)
        assert_close(row["std_error"], parameter["se"], 1e-6)
    rows = fit.variance_table(information="observed").loc[table.index]
    np.testing.assert_allclose(rows["std_error"], table["std_error"], rtol=1e-12)


def test_ranges_and_totals_of_either_information():
    """The range and rho = exp(-1 / range) have errors by the delta method, of both informations."""
    data = lf.datasets.bodyweight()
    fit = lf.lmm("weight ~ Time * Diet + (1 | Rat)", data, residual=lf.OU("Time"))
    for information in ("expected", "observed"):
        table = fit.variance_table(information=information)
        reach, rho = table.loc["range(Time)"], table.loc["rho(Time)"]
        slope = rho["estimate"] / reach["estimate"] ** 2
        assert_close(reach["std_error"] * slope, rho["std_error"], 1e-9)
        own = fit.conf_int_theta(information=information).loc["rho(Time)", "std_error"]
        assert_close(rho["std_error"], own, 1e-9)
    pd.testing.assert_frame_equal(fit.variance_table(), fit.variance_table(information="expected"))
    with pytest.raises(ValueError, match="information"):
        fit.variance_table(information="both")
