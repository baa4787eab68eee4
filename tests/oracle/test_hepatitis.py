"""The data people ask about first, with published numbers and a fit on the boundary.

Fixed effects are the intercept, log_days - 6.5 and the baseline titre. With a random slope the
correlation of intercept and slope is estimated as 1: the answer is right, the fit has not failed.
"""

import numpy as np
import pytest
from peers import ENGINES, METHODS, assert_close, load, plain_words

import lmmfast

FIXED = "log_titer ~ I(log_days - 6.5) + log_titer_baseline"
INTERCEPT = f"{FIXED} + (1 | infant)"
SLOPE = f"{FIXED} + (1 + I(log_days - 6.5) | infant)"

# The digits printed by lme4: log-likelihood, intercept variance, residual variance.
PRINTED = {
    "ML": (-505.92354982, 1.941414, 1.005081),
    "REML": (-509.56255095, 1.984506, 1.010511),
}
PRINTED_SLOPE = {"ML": -505.64672578, "REML": -509.29065811}

each_engine = pytest.mark.parametrize("engine", ENGINES)
each_method = pytest.mark.parametrize("method", METHODS)


@each_engine
@each_method
def test_random_intercept(fit_once, method, engine):
    fit = fit_once("hepatitis", INTERCEPT, method, engine)
    llf, intercept, residual = PRINTED[method]
    assert fit.converged
    assert "boundary" not in plain_words(fit)
    assert fit.llf == pytest.approx(llf, abs=6e-9)
    assert fit.cov_re.to_numpy().item() == pytest.approx(intercept, abs=6e-7)
    assert fit.scale == pytest.approx(residual, abs=6e-7)


@each_engine
@each_method
def test_random_slope_on_the_boundary(fit_once, method, engine):
    """Warnings are errors here, so that a false alarm fails the test."""
    fit = fit_once("hepatitis", SLOPE, method, engine)
    assert fit.llf == pytest.approx(PRINTED_SLOPE[method], abs=6e-9)
    assert fit.converged
    assert "boundary" in plain_words(fit)
    assert "correlation" in plain_words(fit)
    D = fit.cov_re.to_numpy()
    assert D[0, 0] > 0 and D[1, 1] > 0
    assert abs(D[0, 1]) / np.sqrt(D[0, 0] * D[1, 1]) == pytest.approx(1.0, abs=1e-9)


@each_engine
@each_method
def test_moving_the_origin_of_time_changes_nothing(fit_once, method, engine):
    """log_days instead of log_days - 6.5: the same model written in other parameters."""
    formula = "log_titer ~ log_days + log_titer_baseline + (1 + log_days | infant)"
    moved, centred = (fit_once("hepatitis", f, method, engine) for f in (formula, SLOPE))
    assert moved.converged
    assert_close(moved.llf, centred.llf, 1e-10)
    assert_close(moved.params["log_days"], centred.params["I(log_days - 6.5)"], 1e-6)
    shift = np.array([[1.0, -6.5], [0.0, 1.0]])  # Z = Z_centred, D = shift D_centred shift'
    D = shift @ centred.cov_re.to_numpy() @ shift.T
    assert_close(moved.cov_re, D, 1e-6, np.sqrt(np.outer(np.diag(D), np.diag(D))))


def test_the_two_questions(fit_once):
    """The titre falls with log time, and a high baseline goes with high titres afterwards."""
    fit = fit_once("hepatitis", INTERCEPT, "REML")
    interval = fit.conf_int().to_numpy()
    names = list(fit.params.index)
    time, baseline = names.index("I(log_days - 6.5)"), names.index("log_titer_baseline")
    assert interval[time, 1] < 0
    assert interval[baseline, 0] > 0


def test_arrays_give_the_same_fit(fit_once):
    data = load("hepatitis")
    time = data["log_days"].to_numpy() - 6.5
    ones = np.ones_like(time)
    fit = lmmfast.fit(
        data["log_titer"].to_numpy(),
        np.column_stack([ones, time, data["log_titer_baseline"]]),
        data["infant"].to_numpy(),
        Z=np.column_stack([ones, time]),
        reml=False,
    )
    assert fit.llf == pytest.approx(PRINTED_SLOPE["ML"], abs=6e-9)
    formula_fit = fit_once("hepatitis", SLOPE, "ML")
    assert_close(fit.params, formula_fit.params, 1e-6)
    # D is singular: compare the SDs, and the correlation through its entries.
    D = formula_fit.cov_re.to_numpy()
    assert_close(fit.cov_re, D, 1e-6, np.sqrt(np.outer(np.diag(D), np.diag(D))))
