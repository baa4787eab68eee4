"""Standard errors of variance parameters beside SAS's COVTEST: observed information."""

import numpy as np
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
