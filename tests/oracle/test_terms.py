"""Tests of terms beside lmerTest's and pbkrtest's, degrees of freedom by counting beside nlme's."""

from functools import cache

import numpy as np
import pytest
from peers import assert_close, expected, load
from test_residual_sas import fit_of as sas_fit

import lmmfast as lf
from lmmfast.inference.anova import term_hypotheses
from lmmfast.inference.fixed_terms import fixed_terms

pytestmark = pytest.mark.filterwarnings("ignore::lmmfast.errors.MissingRowsWarning")

CASES = expected("terms")["cases"]


@cache
def fit_of(name):
    return lf.lmm(CASES[name]["formula"], load(CASES[name]["data"]))


def plain(name):
    """``Sex[T.Male]`` as R has it."""
    for piece in ("[T.", "]"):
        name = name.replace(piece, "")
    return name.replace("Intercept", "(Intercept)")


def same_term(ours, theirs):
    return set(ours.split(":")) == set(theirs.split(":"))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "anova" in case])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_hypotheses(name, kind):
    """The same hypothesis: rows of ours and theirs span one space."""
    fit, case = fit_of(name), CASES[name]
    order = [[plain(x) for x in fit.x_names].index(x) for x in case["x_names"]]
    hypotheses = term_hypotheses(fit, fixed_terms(fit), kind)
    for term, L in case["anova"][f"type{kind}|L"].items():
        own = next(H for ours, H in hypotheses.items() if same_term(ours, term))[:, order]
        together = np.linalg.svd(np.vstack([own, L]), compute_uv=False)
        assert len(own) == len(L)
        assert (together > 1e-8).sum() == len(L)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "anova" in case])
@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_anova(name, kind, ddf):
    """lmerTest stops where its gradient is small, and its Hessian is numeric: 1e-6."""
    table = fit_of(name).inference(ddf).anova(type=kind)
    want = CASES[name]["anova"][f"type{kind}|{ddf}"]
    assert len(table) == len(want)
    for (term, df_num, df_denom, F), row in zip(want, table.itertuples(), strict=True):
        assert same_term(row.Index, term)
        assert row.df_num == df_num
        assert_close(row.statistic, F, 1e-7)
        assert_close(row.df_denom, df_denom, 1e-6)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "inner_outer" in case])
def test_inner_outer(name):
    assert fit_of(name).inference("inner-outer").df.to_list() == CASES[name]["inner_outer"]


def test_between_within_of_sas():
    """fev_arm_ar1_robust: 197 subjects with data, two columns between them."""
    fit = sas_fit("FEV1 ~ ARMCD", "REML", "AR1('visit')", None, (("ARMCD", "PBO"),))
    assert fit.inference("between-within").df.to_list() == [195.0, 195.0]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "intervals" in case])
def test_intervals_of_standard_deviations(name):
    """nlme differences its Hessian with rough steps: two percent of the width of the interval.

    The standard errors themselves are compared with the exact Hessian below.
    """
    fit, want = fit_of(name), dict(CASES[name]["intervals"])
    table = fit.conf_int_theta()
    low, _, high = np.sqrt(table.loc["var(Residual)", ["conf_low", "estimate", "conf_high"]])
    sigma = want.pop("sigma")
    assert_close([low, high], [sigma[0], sigma[2]], 0.02, sigma[2] - sigma[0])
    for key, (lower, estimate, upper) in want.items():
        group, _, rest = key.partition("|")
        names = rest.replace("(Intercept)", "Intercept")
        row = next(
            row
            for label, row in table.iterrows()
            if label.startswith(names.removesuffix(")") + "|") and group in label
        )
        assert_close(row["estimate"], estimate, 1e-4, upper - lower)
        assert_close([row["conf_low"], row["conf_high"]], [lower, upper], 0.02, upper - lower)


def test_expected_information_is_that_of_the_variance_table():
    fit = fit_of("unbal_slopes_sim")
    table = fit.conf_int_theta(information="expected").loc[fit.theta_names]
    want = fit.variance_table()
    np.testing.assert_allclose(table, want.loc[fit.theta_names], rtol=1e-12)
    observed = fit.conf_int_theta()["std_error"]
    assert observed["var(x|g)"] / table.loc["var(x|g)", "std_error"] > 1.2


ONE_FACTOR = [
    name for name, case in CASES.items() if "info_observed" in case and "/" not in case["formula"]
]


@pytest.mark.parametrize("name", ONE_FACTOR)
def test_observed_information(name):
    """Standard errors of theta beside the Hessian of the restricted likelihood."""
    fit = fit_of(name)
    cov = np.linalg.inv(CASES[name]["info_observed"])
    table = fit.conf_int_theta().loc[fit.theta_names]
    assert_close(table["std_error"], np.sqrt(np.diag(cov)), 1e-6)
    sd = fit.conf_int_theta().iloc[0]  # the delta method for the root of the first variance
    assert_close(sd["std_error"], np.sqrt(cov[0, 0]) / (2 * sd["estimate"]), 1e-6)
