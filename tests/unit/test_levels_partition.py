"""Variance partitions: by hand, against lme4's variances, with slopes, weights and structures."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf

RNG = np.random.default_rng(20261)


@pytest.fixture(scope="module")
def pastes():
    return lf.lmm("strength ~ 1 + (1 | batch/cask)", lf.datasets.pastes())


@pytest.fixture(scope="module")
def trial():
    """Rows of patients in centres, with a slope by centre and weights."""
    center, patient = np.divmod(np.repeat(np.arange(60), 4), 6)
    d = pd.DataFrame({"center": center, "patient": patient, "t": np.tile(np.arange(4.0), 60)})
    d["w"] = RNG.uniform(0.5, 2.0, len(d))
    b, c = RNG.normal(0, 1, (10, 2)), RNG.normal(0, 1, (10, 6))
    d["y"] = b[center, 0] + (1 + 0.5 * b[center, 1]) * d["t"] + c[center, patient]
    d["y"] += RNG.normal(0, 1, len(d)) / np.sqrt(d["w"])
    return d


def test_pastes_as_in_lme4(pastes):
    """Variances that lme4 prints for this model (REML): 1.657, 8.434, 0.678."""
    table = pastes.variance_partition()
    assert table.index.to_list() == ["batch", "batch:cask", "Residual"]
    np.testing.assert_allclose(table["variance"], [1.6573, 8.4337, 0.6780], atol=5e-5)
    total = table["variance"].sum()
    np.testing.assert_allclose(table["share"], table["variance"] / total, rtol=1e-14)
    icc = [1.6573 / 10.769, (1.6573 + 8.4337) / 10.769]
    np.testing.assert_allclose(table["icc"].iloc[:2], icc, atol=5e-5)
    assert np.isnan(table["icc"].iloc[2])


def test_crossed_factors_share_nothing():
    fit = lf.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", lf.datasets.penicillin())
    table = fit.variance_partition()
    np.testing.assert_array_equal(table["icc"].iloc[:2], table["share"].iloc[:2])
    np.testing.assert_allclose(table["variance"], fit.theta.to_numpy(), rtol=1e-12)


def test_slopes_and_weights_by_hand(trial):
    fit = lf.lmm("y ~ t + (1 + t | center) + (1 | center:patient)", trial, weights="w")
    table = fit.variance_partition()
    D = fit.varcorr["center"].cov.to_numpy()
    Z = np.column_stack([np.ones(len(trial)), trial["t"]])
    expected = [
        np.mean([z @ D @ z for z in Z]),
        fit.theta["var(Intercept|center:patient)"],
        fit.scale * np.mean(1 / trial["w"]),
    ]
    np.testing.assert_allclose(table["variance"], expected, rtol=1e-10)


def test_means_are_of_the_diagonal_of_V_with_a_residual_structure(trial):
    fit = lf.lmm(
        "y ~ t + (1 + t | p)",
        trial.assign(p=10 * trial["center"] + trial["patient"]),
        weights="w",
        residual=lf.VarPower("w"),
    )
    V = [np.diag(fit.implied_covariance(group)) for group in fit.group_labels]
    total = fit.variance_partition()["variance"].sum()
    np.testing.assert_allclose(total, np.mean(np.concatenate(V)), rtol=1e-10)


def test_far_from_the_origin_nothing_cancels(trial):
    near = lf.lmm("y ~ t + (1 + t | center)", trial).variance_partition()
    far = trial.assign(t=trial["t"] + 1e6)
    table = lf.lmm("y ~ t + (1 + t | center)", far).variance_partition()
    np.testing.assert_allclose(table["variance"], near["variance"], rtol=1e-6)


def test_one_factor_and_no_random_effects():
    d = lf.datasets.orthodont()
    table = lf.lmm("distance ~ age + (1 | Subject)", d).variance_partition()
    assert table.index.to_list() == ["Subject", "Residual"]
    fit = lf.lmm("distance ~ age", d, groups="Subject", residual=lf.CompoundSymmetry())
    table = fit.variance_partition()
    assert table.index.to_list() == ["Residual"]
    np.testing.assert_allclose(table["share"], 1.0)


def test_arrays(trial):
    Z = np.column_stack([np.ones(len(trial)), trial["t"]])
    unit = 10 * trial["center"] + trial["patient"]
    fit = lf.fit(trial["y"], Z, groups={"center": trial["center"], "unit": unit}, Z=[Z, None])
    same = lf.lmm("y ~ t + (1 + t | center) + (1 | unit)", trial.assign(unit=unit))
    table, other = fit.variance_partition(), same.variance_partition()
    pd.testing.assert_frame_equal(table, other, rtol=1e-8)


@pytest.mark.parametrize(
    "strip", [lambda fit: pickle.loads(pickle.dumps(fit)), lambda fit: copy.copy(fit).remove_data()]
)
def test_survives_without_the_data(pastes, strip):
    stripped = strip(pastes)
    pd.testing.assert_frame_equal(stripped.variance_partition(), pastes.variance_partition())


def test_appended_rows_are_gone():
    d = lf.datasets.sleepstudy()
    fit = lf.lmm("Reaction ~ Days + (1 | Subject)", d.iloc[:90]).append(d.iloc[90:])
    with pytest.raises(lf.DataError, match="holds none"):
        fit.variance_partition()
    pickle.loads(pickle.dumps(fit))
