"""Marginal means, slopes, contrasts and adjustments beside the R package emmeans."""

from functools import cache

import numpy as np
import pytest
from peers import assert_close, expected, load

import lmmfast as lf

CASES = expected("marginal_means")["cases"]
MODELS = expected("terms")["cases"]
# Arguments of emmeans, or of emtrends with a covariate, by the name of the case.
CALLS = {
    "Days_at": ("Days", {"at": {"Days": [0, 4.5, 9]}}),
    "Sex": ("Sex", {}),
    "Sex_age": (["Sex", "age"], {"at": {"age": [8, 14]}}),
    "recipe": ("recipe", {}),
    "temperature": ("temperature", {}),
    "trt": ("trt", {}),
    "trt_prop": ("trt", {"weights": "proportional"}),
    "trt_x1": ("trt", {"at": {"x": 1}}),
    "nitrof": ("nitrof", {}),
    "Variety": ("Variety", {}),
    "cells": (["Variety", "nitrof"], {}),
    "Variety_prop": ("Variety", {"weights": "proportional"}),
    "Variety_cells": ("Variety", {"weights": "cells"}),
    "Variety_outer": ("Variety", {"weights": "outer"}),
}
SLOPES = {
    "orthodont_ris": ("Sex", "age"),
    "unbal_slopes_sim": ("trt", "x"),
    "cd4_sim": ("trt", "time"),
}
KEYS = [(name, key) for name, case in CASES.items() for key in case]


@cache
def means_of(name, key):
    what, ddf = key.split("|")
    model = MODELS[name]
    fit = fit_of(model["formula"], model["data"]).inference(ddf)
    if "slopes" in what:
        return fit.emtrends(*SLOPES[name])
    of, options = CALLS[what]
    return fit.emmeans(of, **options)


@cache
def fit_of(formula, data):
    return lf.lmm(formula, load(data))


def assert_rows(frame, want):
    """Estimates and limits relative to standard errors; df of lmerTest's numeric Hessian: 1e-6.

    Tails of the studentized range are R's to eight digits, its quantiles to four.
    """
    want = np.array(want, dtype=float)
    error = want[:, 1]
    assert_close(frame["estimate"], want[:, 0], 1e-7, error)
    assert_close(frame["std_error"], error, 1e-7)
    assert_close(frame["df"], want[:, 2], 1e-6)
    for column, limits in (("conf_low", want[:, 3]), ("conf_high", want[:, 4])):
        assert_close(frame[column], limits, 1e-4, error)
    if want.shape[1] > 5:
        assert_close(frame["p_value"], want[:, 5], 1e-5, np.maximum(want[:, 5], 1e-6))


@pytest.mark.parametrize(("name", "key"), KEYS, ids=["-".join(key) for key in KEYS])
def test_means(name, key):
    assert_rows(means_of(name, key).frame, CASES[name][key]["emmeans"])


@pytest.mark.parametrize(("name", "key"), KEYS, ids=["-".join(key) for key in KEYS])
def test_pairs(name, key):
    for what, want in CASES[name][key].items():
        if what.startswith("pairs_"):
            assert_rows(means_of(name, key).pairs(what.removeprefix("pairs_")).frame, want)


@pytest.mark.parametrize(("name", "key"), KEYS, ids=["-".join(key) for key in KEYS])
def test_dunnett(name, key):
    want = CASES[name][key].get("trt_vs_ctrl_dunnettx")
    if want is None:
        pytest.skip("the case has no control")
    means = means_of(name, key)
    assert_rows(means.contrast("trt.vs.ctrl").frame, want)
