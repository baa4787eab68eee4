"""Residual correlation structures, every build of them, beside their definitions in NumPy."""

import numpy as np
import pytest
from residual_definitions import DISTANCE, TABLE, derivatives
from samples import LEVELS

cores = pytest.mark.parametrize("core", list(LEVELS.values()), ids=list(LEVELS))


@cores
def test_all_are_known(core):
    kinds = {name: structure["kind"] for name, structure in core.residual_structures().items()}
    assert kinds == dict.fromkeys(DISTANCE, "distance") | dict.fromkeys(TABLE, "table")


@cores
@pytest.mark.parametrize("name", DISTANCE)
@pytest.mark.parametrize("psi", [-3.0, -0.7, 0.2, 1.0, 6.0])
def test_of_distance(core, name, psi):
    rng = np.random.default_rng(1)
    d = np.concatenate([[0, 0, 1, 2, 3, 7, 40], rng.uniform(0, 6, 0 if name == "ar1" else 30)])
    for count in (len(d), 8, 5, 1, 0):  # whole packs and parts of one
        C, dC = core.residual_distance(name, d[:count], psi)
        want = np.real(DISTANCE[name](d[:count], psi))
        want_dC = derivatives(lambda x: DISTANCE[name](d[:count], x[0]), [psi])[0]  # noqa: B023
        np.testing.assert_allclose(C, want, rtol=1e-14, atol=3e-15)
        np.testing.assert_allclose(dC, want_dC, rtol=1e-13, atol=3e-15)
    C, dC = core.residual_distance(name, np.zeros(3), psi)
    assert (C == 1).all()
    assert (dC == 0).all()
    assert core.residual_n_params(name, 5) == 1


@cores
def test_ar1_without_correlation(core):
    C, dC = core.residual_distance("ar1", np.array([0.0, 1.0, 2.0, 3.0]), 0.0)
    np.testing.assert_allclose(C, [1, 0, 0, 0], atol=1e-300)
    np.testing.assert_allclose(dC, [0, 1, 0, 0], atol=1e-300)


@cores
@pytest.mark.parametrize("name", DISTANCE)
@pytest.mark.parametrize("psi", [-800.0, -300.0, 300.0, 800.0])
def test_far_ends_are_finite(core, name, psi):
    d = np.array([0.0, 1.0, 2.0, 1e12, 1e300])
    for values in core.residual_distance(name, d, psi):
        assert np.isfinite(values).all()
        assert (np.abs(values) <= 1).all()


@cores
@pytest.mark.parametrize("name", DISTANCE)
def test_not_a_number_is_kept(core, name):
    C, _ = core.residual_distance(name, np.array([0.0, np.nan, 2.0]), 0.4)
    np.testing.assert_array_equal(np.isnan(C), [False, True, False])
    assert np.isnan(core.residual_distance(name, np.array([1.0]), np.nan)[0]).all()


@cores
@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("T", [2, 3, 4, 7])
def test_of_levels(core, name, T):
    define, n_params = TABLE[name]
    psi = np.random.default_rng(T).uniform(-0.9, 0.9, n_params(T))
    C, dC = core.residual_table(name, T, psi)
    np.testing.assert_allclose(C, np.real(define(T, psi)), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(dC, derivatives(lambda x: define(T, x), psi), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(np.diag(C), 1)
    if name == "banded_toeplitz":
        with pytest.raises(ValueError, match="any number"):
            core.residual_n_params(name, T)
    else:
        np.linalg.cholesky(C)
        assert core.residual_n_params(name, T) == n_params(T)


@cores
@pytest.mark.parametrize("name", TABLE)
def test_one_level(core, name):
    n = 0 if name == "banded_toeplitz" else core.residual_n_params(name, 1)
    C, dC = core.residual_table(name, 1, np.full(n, 0.3))
    np.testing.assert_array_equal(C, [[1]])
    np.testing.assert_array_equal(dC, np.zeros((n, 1, 1)))


@cores
def test_wrong_arguments(core):
    for call in (core.residual_n_params, lambda name, T: core.residual_table(name, T, np.zeros(1))):
        with pytest.raises(ValueError, match="called ar2"):
            call("ar2", 3)
        with pytest.raises(ValueError, match="T must be positive"):
            call("toeplitz", 0)
    with pytest.raises(ValueError, match="called ar2"):
        core.residual_distance("ar2", np.zeros(1), 0.0)
    with pytest.raises(ValueError, match="toeplitz has 3 parameters"):
        core.residual_table("toeplitz", 4, np.zeros(2))
    with pytest.raises(ValueError, match="fewer parameters than levels"):
        core.residual_table("banded_toeplitz", 3, np.zeros(3))
