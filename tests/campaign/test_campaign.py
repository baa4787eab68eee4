"""The first problems of the campaign: nothing wrong, nothing short, no false alarm."""

from __future__ import annotations

import numpy as np
import pytest
from dense_likelihood import DenseLikelihood
from judge import FINDS, judge
from random_models import problem
from residual_kinds import RESIDUALS

import lmmfast as lf

MENDED = (
    *(119, 150, 229, 542, 610, 724, 1257, 1356, 3461),  # variances of zero; lost information
    *(1874, 3397, 4226, 4334, 5045, 5733, 7304, 9585, 9702, 9989),  # near an end, or on a ridge
    *(1052, 2405, 2696, 3780, 4095, 6350, 8580, 11546, 12201),  # no maximum, or no digits left
    *(995, 4375, 5325),  # other maxima
)


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_problems(first):
    for seed in range(first, first + 10):
        one = problem(seed)
        outcome, detail = judge(one)
        assert outcome not in FINDS, f"{outcome}: {one}\n{detail}"


@pytest.mark.parametrize("seed", MENDED)
def test_what_was_found_and_mended(seed):
    """What earlier runs of the campaign found."""
    one = problem(seed)
    outcome, detail = judge(one)
    assert outcome not in FINDS, f"{outcome}: {one}\n{detail}"


def test_all_kinds_are_drawn():
    some = [problem(seed) for seed in range(600)]
    assert {one.residual for one in some} == set(RESIDUALS)
    assert {len(one.terms) for one in some} == {0, 1, 2, 3}
    assert {term.structure for one in some for term in one.terms} == {
        "us",
        "diag",
        "cs",
        "identity",
    }
    assert all(any(getattr(one, name) for one in some) for name in ("weights", "offset", "by"))
    assert {one.reml for one in some} == {False, True}
    assert {"twice", "near"} <= {column for one in some for column in one.fixed}


def test_the_judge_sees_what_is_wrong():
    """A likelihood off by 1e-6, and one short by 1e-4, of a model that is right."""
    one = next(p for p in map(problem, range(100)) if judge(p)[0] == "right" and len(p.data) > 30)
    fit = lf.lmm(one.formula, one.data, **one.options)
    dense = DenseLikelihood(one, fit.x_names)
    theta = fit.theta.to_dict()
    known = dense.checked_loglik(theta)
    assert fit.llf == pytest.approx(known, rel=1e-10)
    assert dense._exact(dense.V(theta)) == pytest.approx(known, rel=1e-10)
    name = max(theta, key=lambda k: theta[k] if k.startswith("var") else -np.inf)
    worse = dense.loglik({**theta, name: 1.3 * theta[name]})
    assert worse < known - 1e-4
    assert dense.improved({**theta, name: 1.3 * theta[name]}, 0, 0) > known - 1e-6
