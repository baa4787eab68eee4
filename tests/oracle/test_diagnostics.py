"""Residuals, influence, R2 and hat traces beside lme4 and a dense program at the same optimum."""

import numpy as np
import pytest
from peers import assert_close, expected, load
from test_inference import CASES, fit_of, in_order

import lmmfast as lf

WANTED = expected("diagnostics")["cases"]
WITH_INFLUENCE = sorted(name for name, case in WANTED.items() if "influence" in case)
KINDS = {
    "marginal": ("response", "population"),
    "conditional": ("response", "conditional"),
    "pearson_marginal": ("pearson", "population"),
    "pearson_conditional": ("pearson", "conditional"),
    "studentized_marginal": ("studentized", "population"),
    "studentized_conditional": ("studentized", "conditional"),
}


def test_cases_are_there():
    assert len(WANTED) == 12 and len(WITH_INFLUENCE) == 9


@pytest.mark.parametrize("name", sorted(WANTED))
def test_residuals(name):
    fit, case = fit_of(name), WANTED[name]
    rows = np.array(case["rows"]) - 1
    for kind, (ours, level) in KINDS.items():
        values = np.asarray(fit.residuals(ours, level))[rows]
        assert_close(values, case["residuals"][kind], 1e-7, np.abs(values).max())
    # Conditional leverage from the variance of a studentized residual.
    ratio = fit.residuals("pearson") / fit.residuals("studentized")
    leverage = 1 - np.asarray(ratio)[rows] ** 2
    assert_close(leverage, case["residuals"]["leverage_conditional"], 1e-7)


@pytest.mark.parametrize("name", sorted(WANTED))
def test_normalized_residuals(name):
    fit, case = fit_of(name), WANTED[name]
    values = np.asarray(fit.residuals("normalized"))[np.array(case["rows"]) - 1]
    assert_close(values, case["residuals"]["normalized_cholesky"], 1e-7, np.abs(values).max())


@pytest.mark.parametrize("name", sorted(WANTED))
def test_r2_and_hat_traces(name):
    fit, case = fit_of(name), WANTED[name]
    want = [case["r2"]["r2_marginal"], case["r2"]["r2_conditional"]]
    np.testing.assert_allclose(fit.r2(), want, rtol=1e-7, atol=1e-12)
    shares = fit.variance_partition()["share"]
    assert_close(1 - shares["Residual"], case["r2"]["icc_adjusted"], 1e-7)
    assert_close(fit.hat_trace, case["hat_trace"], 1e-7)
    by_ml = lf.lmm(CASES[name]["formula"], load(CASES[name]["data"]), reml=False)
    assert_close(by_ml.hat_trace, case["hat_trace_ml"], 1e-6)


@pytest.mark.parametrize("name", WITH_INFLUENCE)
def test_influence_of_clusters(name):
    fit, wanted = fit_of(name), WANTED[name]["influence"]
    factor = min(fit._grouping, key=lambda factor: fit._grouping[factor][0])
    labels = np.asarray(load(CASES[name]["data"])[factor])
    fixed = fit.influence(theta=False, refit=0)
    refits = fit.influence(refit=len(wanted))
    beta = [f"dfb_{name}" for name in fit.x_names]
    theta = [f"dft_{name}" for name in fit.theta_names]
    for case in wanted:
        label = labels[case["first_row"] - 1]
        own, new = fixed.loc[label], refits.loc[label]
        assert own["rows"] == case["rows"]
        for row, want, digits in ((own, case["fixed"], 1e-6), (new, case["refit"], 2e-5)):
            if want is None:  # beyond the boundary: ours is on it
                continue
            assert_close(row["cooks_d"], want["cooks_d"], digits, max(want["cooks_d"], 1e-3))
            assert_close(row["covratio"], want["covratio"], digits)
            dfbetas = in_order(fit, CASES[name], want["dfbetas"])
            assert_close(row[beta].to_numpy(float), dfbetas, digits, 1.0)
        assert new["refitted"]
        if case["refit"] is not None:
            moved = new[theta].to_numpy(float) * fit.theta_se
            assert_close(fit.theta - moved, case["refit"]["theta"], 2e-5, fit.theta_se)
