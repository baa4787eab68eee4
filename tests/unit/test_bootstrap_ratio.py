"""The parametric bootstrap of likelihood ratios, against laws that are known."""

import numpy as np
import pytest
from scipy import stats

import lmmfast as lf
from lmmfast.resampling.likelihood_ratio import null_statistics


def test_as_the_exact_law_of_a_variance():
    data = lf.datasets.dyestuff()
    none = lf.lmm("Yield ~ 1", data, groups="Batch", residual=lf.Independent())
    some = lf.lmm("Yield ~ 1 + (1 | Batch)", data)
    exact = lf.compare(none, some, test="exact", n_sim=100_000).iloc[1]["p"]
    row = lf.compare(none, some, test="bootstrap", B=400).iloc[1]
    assert row["note"].startswith("bootstrap: 400 replicates, standard error")
    n = round(row["p"] * 401) - 1
    assert stats.binomtest(n, 400, exact).pvalue > 1e-3


def test_of_a_fixed_effect_of_a_balanced_design():
    """ML of a mean between groups: the statistic is a function of F."""
    rng = np.random.default_rng(1)
    m, k = 12, 4
    g, arm = np.repeat(np.arange(m), k), np.repeat(np.arange(m) % 2, k)
    y = rng.normal(size=m)[g] * 2 + rng.normal(size=m * k)
    data = {"y": y, "g": g, "arm": arm}
    small = lf.lmm("y ~ 1 + (1 | g)", data, reml=False)
    big = lf.lmm("y ~ arm + (1 | g)", data, reml=False)
    p = lf.compare(small, big, test="bootstrap", B=4000).iloc[1]["p"]
    exact = big.test("arm = 0").p_value  # REML and ML have the same F up to a factor: Student's t
    means = y.reshape(m, k).mean(axis=1)
    exact = stats.ttest_ind(means[::2], means[1::2]).pvalue
    assert abs(p - exact) < 5 * np.sqrt(exact * (1 - exact) / 4000) + 1e-3
    usual = lf.compare(small, big).iloc[1]["p"]
    assert usual < exact < 1


@pytest.mark.parametrize("offset", [False, True])
def test_side_by_side_as_one_by_one(offset, monkeypatch):
    data = lf.datasets.sleepstudy()
    data["known"] = 10.0 * (data["Days"] % 3)
    options = {"offset": "known"} if offset else {}
    small = lf.lmm("Reaction ~ Days + (1 | Subject)", data, **options)
    big = lf.lmm("Reaction ~ Days + (Days | Subject)", data, **options)
    fast = null_statistics(small, big, 12, 3)
    monkeypatch.setattr("lmmfast.resampling.likelihood_ratio.has_moments", lambda fit: False)
    np.testing.assert_allclose(null_statistics(small, big, 12, 3), fast, atol=1e-6)


def test_what_is_refused():
    data = lf.datasets.sleepstudy()
    small = lf.lmm("Reaction ~ Days + (1 | Subject)", data)
    big = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    with pytest.raises(lf.DataError, match="B=0"):
        lf.compare(small, big, test="bootstrap", B=0)
    with pytest.raises(ValueError, match="'bootstrap'"):
        lf.compare(small, big, test="jackknife")
    turned = lf.lmm("Reaction ~ Days + (Days | Subject)", data[::-1])
    with pytest.raises(lf.DataError, match="different orders"):
        lf.compare(small, turned, test="bootstrap", B=10)
    with pytest.raises(lf.DataError, match="data"):
        lf.compare(small.remove_data(), big.remove_data(), test="bootstrap", B=10)
