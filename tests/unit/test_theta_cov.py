"""Covariances of variance parameters: there for every ordinary fit, NaN where nothing is known."""

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.search.information import inverse_information


def frame(seed, flat):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(12), 5)
    x = np.tile(np.arange(5.0), 12)
    y = 0.5 * x + rng.standard_normal(60)
    if flat:  # no variance between the groups: D is at zero
        y -= np.repeat(y.reshape(12, 5).mean(axis=1), 5)
    else:
        y += rng.standard_normal(12)[g]
    return pd.DataFrame({"y": y, "x": x, "g": g})


TERMS = [
    "cs(1 + x | g)",
    "cs(1 + x | g, hom=TRUE)",
    "(1 + x | g)",
    "diag(1 + x | g)",
    "identity(1 + x | g)",
    "(1 | g)",
]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("term", TERMS)
def test_an_ordinary_fit_has_them(term, flat, reml):
    for seed in range(3):
        fit = lf.lmm(f"y ~ x + {term}", frame(seed, flat), reml=reml)
        assert fit.converged
        variance = np.diag(fit.theta_cov)
        assert not (variance < 0).any()
        assert np.isfinite(variance[-1])
        assert variance[-1] > 0
        np.testing.assert_array_equal(fit.theta_se, np.sqrt(variance))
        table = fit.variance_table()
        assert (table["estimate"] == fit.theta).all()
        on_boundary = any(rank < q for rank, q in fit.certificate.rank.values())
        assert np.isnan(variance[:-1]).all() == on_boundary
        if on_boundary:  # the residual variance is that of a model without random effects
            df = fit.nobs - (2 if reml else 0)
            if sum(rank for rank, _ in fit.certificate.rank.values()) == 0:
                assert variance[-1] == pytest.approx(2 * fit.scale**2 / df, rel=1e-8)


def test_the_inverse_of_a_regular_matrix():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((5, 5))
    units = 10.0 ** np.arange(-6, 9, 3)
    found = inverse_information(A @ A.T * np.outer(units, units)) * np.outer(units, units)
    np.testing.assert_allclose(found, np.linalg.inv(A @ A.T), rtol=1e-9)


def test_directions_without_information():
    """Only the sum of the first two parameters is determined."""
    information = np.array([[2.0, 2.0, 0.5], [2.0, 2.0, 0.5], [0.5, 0.5, 3.0]])
    cov = inverse_information(information)
    assert np.isnan(cov[:2]).all()
    # The third beside the sum: the inverse of [[2, .5], [.5, 3]].
    assert cov[2, 2] == pytest.approx(2.0 / (6.0 - 0.25), rel=1e-12)


def test_no_negative_variances():
    information = np.array([[1.0, 1.0 + 1e-9], [1.0 + 1e-9, 1.0]])
    assert np.isnan(inverse_information(information)).all()


def test_covariances_of_effects_are_never_negative():
    """Rounding may leave a negative variance: the eigenvalue becomes zero, others stay."""
    from lmmfast.search.information import without_negative_variances

    fine = np.array([[2.0, 0.5], [0.5, 1.0]])
    rounded = np.array([[-1e-16, 0.0], [0.0, 3.0]])
    found = without_negative_variances(np.array([fine, rounded]))
    np.testing.assert_array_equal(found[0], fine)
    np.testing.assert_allclose(found[1], [[0, 0], [0, 3]], atol=1e-15)
    assert (np.diagonal(found, axis1=1, axis2=2) >= 0).all()
    one = np.array([fine])
    assert without_negative_variances(one) is one
