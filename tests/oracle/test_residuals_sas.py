"""Marginal residuals of all kinds beside SAS PROC MIXED's OUTPM tables."""

import numpy as np
import pandas as pd
import pytest
from peers import EXPECTED, load

import lmmfast as lf

# A third of the visits of SAS's data set was missed.
pytestmark = pytest.mark.filterwarnings("ignore::lmmfast.errors.MissingRowsWarning")

TABLE = pd.read_csv(EXPECTED / "sas_residuals.csv")
# The last number is how far the residuals at SAS's parameters are from those at the optimum, which
# SAS stops short of (its rounding included): a dense evaluation at both says so.
MODELS = {
    "fev_arm_sppow_1d_reml": ("FEV1 ~ ARMCD", lf.SpatialPower("VISITN"), None, 1e-5),
    "fev_arm_un_bygroup_bw": ("FEV1 ~ ARMCD", lf.Unstructured("AVISIT", by="ARMCD"), None, 1e-4),
    "fev_cells_un_bw": (
        "FEV1 ~ RACE + SEX + ARMCD * AVISIT",  # the means of ARMCD:AVISIT
        lf.Unstructured("AVISIT"),
        None,
        4e-4,
    ),
    "fev_full_un_fitweight_reml": (
        "FEV1 ~ RACE + SEX + ARMCD * AVISIT",
        lf.Unstructured("AVISIT"),
        "fit_weight",
        2e-4,
    ),
}
KINDS = {
    "Resid": "response",
    "ScaledResid": "normalized",
    "StudentResid": "studentized",
    "PearsonResid": "pearson",
}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    formula, residual, weights, tolerance = MODELS[request.param]
    data = load("fev").dropna(subset=["FEV1"])
    fit = lf.lmm(formula, data, groups="USUBJID", residual=residual, weights=weights)
    table = TABLE[TABLE["case"] == request.param].set_index(["USUBJID", "AVISIT"])
    return fit, table.loc[pd.MultiIndex.from_frame(data[["USUBJID", "AVISIT"]])], tolerance


@pytest.mark.parametrize("column", KINDS)
def test_marginal_residuals(case, column):
    fit, wanted, tolerance = case
    got = fit.residuals(KINDS[column], "population")
    tolerance = max(tolerance, 3e-4) if column == "Resid" else tolerance
    assert len(wanted) == 537
    np.testing.assert_allclose(got, wanted[column], rtol=0, atol=tolerance)
