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
