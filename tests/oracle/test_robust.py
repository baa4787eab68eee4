"""Robust variances beside clubSandwich, and with the principal root of CR2 beside a dense program.

clubSandwich was given nlme's optimum for residual structures, which is good to 1e-6.
"""

import numpy as np
import pytest
from peers import assert_close, expected
from test_inference import CASES, STRUCTURED, fit_of, in_order

import lmmfast as lf

pytestmark = pytest.mark.filterwarnings("ignore::lmmfast.errors.MissingRowsWarning")

ROBUST = expected("robust")["cases"]
KINDS = ("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3")


def test_cases_are_there():
    assert len(ROBUST) == 14
    assert all(set(KINDS) < set(case) and "CR2 principal" in case for case in ROBUST.values())


@pytest.mark.parametrize("kind", [*KINDS, "CR2 principal"])
@pytest.mark.parametrize("name", sorted(ROBUST))
def test_variances_and_degrees_of_freedom(name, kind):
    fit, want = fit_of(name), ROBUST[name][kind]
    digits = 2e-6 if name in STRUCTURED and kind != "CR2 principal" else 1e-8
    vcov = {"CR2": "CR2-clubsandwich", "CR2 principal": "CR2"}.get(kind, kind)
    view = fit.inference(vcov=vcov)
    if want["vcov"] is None or np.isnan(view.bse).any():  # CR1p with as many columns as clusters
        assert want["vcov"] is None or np.isnan(np.array(want["vcov"], dtype=float)).any()
        return
    se = view.bse.to_numpy()
    vcov = in_order(fit, CASES[name], want["vcov"])
    assert_close(view.cov_params(), vcov, digits, np.outer(se, se))
    if want["df"] is not None:
        assert_close(view.df, in_order(fit, CASES[name], want["df"]), digits)
    if want["HTZ"] is not None and None not in want["HTZ"] and len(se) > 1:
        joint = view.test(np.eye(len(se))[1:])
        if want["HTZ"][1] > 0:
            assert_close([joint.statistic, joint.df_denom], want["HTZ"], 10 * digits)
        else:
            assert np.isnan(joint.p_value)


def test_a_column_that_contains_the_groups():
    """By the outermost factor as without; dense sandwich with clusters of two groups."""
    data = lf.datasets.sleepstudy()
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    same = fit.inference(vcov="CR1", cluster=data["Subject"])
    np.testing.assert_allclose(same.bse, fit.inference(vcov="CR1").bse, rtol=1e-12)
    pair = data["Subject"].rank(method="dense").astype(int) // 2
    view = fit.inference(vcov="CR0", cluster=pair)
    X = np.column_stack([np.ones(len(data)), data["Days"]])
    r = data["Reaction"].to_numpy() - X @ fit.params
    M, meat = fit.cov_params().to_numpy(), np.zeros((2, 2))
    scores = {}
    for subject in data["Subject"].unique():
        rows = (data["Subject"] == subject).to_numpy()
        V = fit.implied_covariance(subject).to_numpy()
        own = X[rows].T @ np.linalg.solve(V, r[rows])
        key = pair[rows].iloc[0]
        scores[key] = scores.get(key, 0) + own
    for score in scores.values():
        meat += np.outer(score, score)
    np.testing.assert_allclose(view.cov_params(), M @ meat @ M, rtol=1e-9)
