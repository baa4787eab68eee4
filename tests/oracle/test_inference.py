"""Degrees of freedom and adjusted covariances beside lmerTest, pbkrtest and a dense program.

Random effects: lmerTest's Satterthwaite (its Hessian made analytic) and pbkrtest's Kenward and
Roger, to 1e-8. Residual structures: a dense evaluation at the exact optimum, with observed (SAS)
and expected information; 1e-6, as estimates are.
"""

from functools import cache

import numpy as np
import pytest
from peers import assert_close, expected, load

import lmmfast as lf
from lmmfast.inference.totals import inference_totals

pytestmark = pytest.mark.filterwarnings("ignore::lmmfast.errors.MissingRowsWarning")

CASES = expected("inference")["cases"]
RANDOM = sorted(name for name, case in CASES.items() if "satterthwaite_df" in case)
STRUCTURED = sorted(set(CASES) - set(RANDOM))
STRUCTURES = {"un": lf.Unstructured("AVISIT"), "cs": lf.CompoundSymmetry(), "ar1": lf.AR1("visit")}


@cache
def fit_of(name):
    case = CASES[name]
    data = load(case["data"]).copy()
    if case["data"] == "orthodont":
        data["visit"] = (data["age"] - 6) // 2
    if name in RANDOM:
        return lf.lmm(case["formula"], data)
    residual = STRUCTURES[case["structure"]]
    return lf.lmm(case["formula"], data, groups=case["subject"], residual=residual)


def in_order(fit, case, values):
    """A vector or matrix of the case in the order of our coefficients."""
    names = [name.replace("(Intercept)", "Intercept") for name in case["x_names"]]
    ours = [
        "".join(part for part in name.replace("T.", "").replace("[", "]").split("]"))
        for name in fit.x_names
    ]
    order = [names.index(name) for name in ours]
    values = np.asarray(values)
    return values[order] if values.ndim == 1 else values[np.ix_(order, order)]


def test_cases_are_there():
    assert len(RANDOM) == 12 and len(STRUCTURED) == 3


@pytest.mark.parametrize("name", RANDOM)
def test_satterthwaite_of_random_effects(name):
    fit, case = fit_of(name), CASES[name]
    assert_close(fit.llf, case["loglik"], 1e-9)
    assert_close(fit.df, in_order(fit, case, case["satterthwaite_df"]), 1e-8)


@pytest.mark.parametrize("name", RANDOM)
def test_kenward_roger_of_random_effects(name):
    fit, case = fit_of(name), CASES[name]
    view, want = fit.inference("kenward-roger"), case["kenward_roger"]
    assert_close(view.df, in_order(fit, case, want["df"]), 1e-8)
    assert_close(view.bse, in_order(fit, case, want["se"]), 1e-8)
    se = view.bse.to_numpy()
    assert_close(view.cov_params(), in_order(fit, case, want["vcov"]), 1e-8, np.outer(se, se))
    linear = fit.inference("kenward-roger-linear")  # V is linear: nothing to leave out
    np.testing.assert_array_equal(linear.cov_params(), view.cov_params())


@pytest.mark.parametrize("name", [n for n in RANDOM if "all_but_intercept" in CASES[n]])
def test_joint_test_of_random_effects(name):
    """Satterthwaite's df are 1e-6: lmerTest's come from a numerical Hessian here."""
    fit, case = fit_of(name), CASES[name]
    L = np.eye(len(fit.x_names))[1:]
    for method, key, digits in (
        ("satterthwaite", "satterthwaite", 1e-6),
        ("kenward-roger", "kenward_roger", 1e-8),
    ):
        df_num, df_denom, F = case["all_but_intercept"][key]
        found = fit.inference(method).test(L)
        assert found.df_num == df_num
        assert_close(found.df_denom, df_denom, digits)
        assert_close(found.statistic, F, 1e-8)


@pytest.mark.parametrize("information", ["observed", "expected"])
@pytest.mark.parametrize("name", STRUCTURED)
def test_residual_structures(name, information):
    fit, case = fit_of(name), CASES[name]
    want = case[information]
    satterthwaite = fit.inference("satterthwaite", information=information)
    assert_close(satterthwaite.df, in_order(fit, case, want["satterthwaite_df"]), 1e-6)
    for method, vcov in (("kenward-roger", "vcov"), ("kenward-roger-linear", "vcov_linear")):
        view = fit.inference(method, information=information)
        se = view.bse.to_numpy()
        assert_close(view.df, in_order(fit, case, want["df"]), 1e-6)
        assert_close(view.cov_params(), in_order(fit, case, want[vcov]), 1e-6, np.outer(se, se))
    joint = fit.inference("kenward-roger", information=information).test(np.eye(len(se))[1:])
    assert_close([joint.df_denom, joint.statistic], want["F"], 1e-6)


def test_observed_is_the_default_as_in_lmertest_and_sas():
    fit = fit_of("unbal_slopes_sim")
    observed, expected_ = (
        fit.inference(information=which).df for which in ("observed", "expected")
    )
    np.testing.assert_array_equal(fit.df, observed)
    assert abs(observed / expected_ - 1).max() > 1e-3


def test_boundary_takes_the_expected_information():
    """Six batches, variance zero: pbkrtest 5; lmerTest drops the parameter and says 29."""
    fit = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff2())
    assert inference_totals(fit).observed is None
    assert_close(fit.df.iloc[0], 5.0, 1e-9)
    assert_close(fit.inference("kenward-roger").df.iloc[0], 5.0, 1e-9)
    assert "expected information" in str(fit.summary()).replace("\n ", "")


def test_same_df_by_every_engine():
    data = lf.datasets.sleepstudy()
    formula = "Reaction ~ Days + (Days | Subject)"
    moments, reference = (
        lf.lmm(formula, data, engine=engine) for engine in ("moments", "reference")
    )
    dense = lf.lmm(formula, data, residual=lf.VarExp("Days"))
    assert_close(moments.df, reference.df, 1e-9)
    assert dense.df.notna().all() and (dense.df < 17.1).all()
