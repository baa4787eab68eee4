"""What would take too much memory or too many hours is refused before it starts."""

import pickle
import time

import numpy as np
import pytest

import lmmfast as lf
from lmmfast import limits
from lmmfast.errors import DataError, TooLargeError, UnsupportedModelError

RNG = np.random.default_rng(5)


def clusters(m, n):
    """y, X, groups and visits of m clusters of n rows."""
    y = RNG.standard_normal(m * n)
    X = np.column_stack([np.ones(m * n), RNG.standard_normal(m * n)])
    return y, X, np.repeat(np.arange(m), n), np.tile(np.arange(n), m)


def refused(call, message):
    """Check the message, and that it comes at once."""
    begun = time.process_time()
    with pytest.raises(TooLargeError, match=message) as caught:
        call()
    assert time.process_time() - begun < 10
    assert isinstance(caught.value, UnsupportedModelError)
    assert isinstance(caught.value, MemoryError)


def test_the_error_can_be_pickled():
    again = pickle.loads(pickle.dumps(TooLargeError("too large")))
    assert str(again) == "too large"


def test_a_fixed_factor_of_many_levels(monkeypatch):
    monkeypatch.setenv("LMMFAST_MEMORY", "16G")
    n = 30_000
    data = {
        "y": RNG.standard_normal(n),
        "site": (np.arange(n) % 20_000).astype(str),
        "g": np.arange(n) // 5,
    }
    refused(
        lambda: lf.lmm("y ~ site + (1 | g)", data),
        r"fixed effect 'site' of 19,999 columns over 30,000 rows would take 29\.8 GiB of memory, "
        r"but 16\.0 GiB may be used: make it a random effect, \(1 \| site\)",
    )


def test_too_many_columns_of_an_array(monkeypatch):
    monkeypatch.setenv("LMMFAST_MEMORY", "20M")
    y, _, groups, _ = clusters(200, 4)
    X = RNG.standard_normal((800, 600))
    refused(lambda: lf.fit(y, X, groups), "600 fixed effects over 800 rows would take 28 MiB")
    refused(
        lambda: lf.fit_many(np.column_stack([y, y]), X, groups),
        "600 fixed effects over 800 rows would take 28 MiB",
    )


def test_correlations_over_many_visits(monkeypatch):
    monkeypatch.setenv("LMMFAST_MEMORY", "8G")
    y, X, groups, visits = clusters(4, 2000)
    refused(
        lambda: lf.fit(y, X, groups, residual=lf.Toeplitz(visits)),
        r"Toeplitz\(.*\) over 2,000 visits, of 1,999 parameters, would take .* GiB of memory, but "
        "8.0 GiB may be used: AR1 or HeterogeneousAR1 has few parameters",
    )


def test_long_clusters_of_a_spatial_structure():
    m, n = 400, 2500
    y, X, groups, _ = clusters(m, n)
    at = RNG.random((2, m * n))
    refused(
        lambda: lf.fit(y, X, groups, residual=lf.SpatialSpherical(*at), n_jobs=2),
        r"SpatialSpherical\(.*\) with clusters of up to 2,500 rows would take about \d+ hours on 2 "
        "threads, more than the 2 that are allowed: split the clusters .*OU .*LMMFAST_HOURS",
    )


def test_variances_of_very_many_levels(monkeypatch):
    monkeypatch.setenv("LMMFAST_MEMORY", "1G")
    y, X, groups, _ = clusters(10_000, 2)
    refused(
        lambda: lf.fit(y, X, groups, residual=lf.ByGroup(groups)),
        "a residual variance for each of the 10,000 levels of .* would take 11.9 GiB",
    )


def test_crossed_factors_that_fill(monkeypatch):
    n = 30_000
    a, b = RNG.integers(0, 4000, n), RNG.integers(0, 3000, n)
    y, X = RNG.standard_normal(n), np.ones((n, 1))
    monkeypatch.setenv("LMMFAST_MEMORY", "20M")
    refused(lambda: lf.fit(y, X, [a, b]), "cross so irregularly")


def test_users_and_items_are_refused_before_they_are_ordered():
    n = 400_000
    a, b = RNG.integers(0, 100_000, n), RNG.integers(0, 60_000, n)
    y, X = RNG.standard_normal(n), np.ones((n, 1))
    refused(
        lambda: lf.fit(y, X, [a, b]),
        r"cross so irregularly that the Cholesky factor of their 15\d,\d+ levels would take "
        r"1\d\.\d GiB or more, but [\d.]+ GiB may be used: leave a factor out",
    )


def test_the_reference_of_very_many_rows(monkeypatch):
    monkeypatch.setenv("LMMFAST_MEMORY", "8G")
    y, X, groups, _ = clusters(10_000, 4)
    refused(
        lambda: lf.fit(y, X, [groups, np.arange(40_000) % 7], engine="reference"),
        r"engine='reference', which forms V of all 40,000 rows, would take 83\.4 GiB of memory, "
        r"but 8\.0 GiB may be used: leave engine= out",
    )


def test_the_hours_of_the_reference(monkeypatch):
    monkeypatch.setenv("LMMFAST_MEMORY", "1T")
    y, X, groups, _ = clusters(5_000, 4)
    refused(
        lambda: lf.fit(y, X, [groups, np.arange(20_000) % 7], engine="reference"),
        r"forms V of all 20,000 rows, would take about \d+ hours on 1 thread",
    )


def test_what_fits_is_as_without_limits(monkeypatch):
    y, X, groups, visits = clusters(60, 4)
    want = lf.fit(y, X, groups, residual=lf.Unstructured(visits)).llf
    for value in ("1G", "512 MiB", "1.5e9", "inf"):
        monkeypatch.setenv("LMMFAST_MEMORY", value)
        assert lf.fit(y, X, groups, residual=lf.Unstructured(visits)).llf == want


SIZES = {"8G": 2.0**33, "8 GiB": 2.0**33, "512m": 2.0**29, "1e9": 1e9, "3kB": 3072, "inf": np.inf}


@pytest.mark.parametrize("text", SIZES)
def test_sizes(monkeypatch, text):
    monkeypatch.setenv("LMMFAST_MEMORY", text)
    assert limits.memory_limit() == SIZES[text]


@pytest.mark.parametrize("text", ["much", "-1G", "0", "nan", "8X"])
def test_what_is_no_size(monkeypatch, text):
    monkeypatch.setenv("LMMFAST_MEMORY", text)
    with pytest.raises(DataError, match=r"LMMFAST_MEMORY=.* is no size: write 8G"):
        limits.memory_limit()
    monkeypatch.setenv("LMMFAST_HOURS", text)
    with pytest.raises(DataError, match=r"LMMFAST_HOURS=.*: give a positive number"):
        limits.hours_limit()


def test_limits_of_the_process(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.delenv("LMMFAST_MEMORY", raising=False)
    most = limits.memory_limit()
    assert 2**28 < most < 2**50
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2**27, 2**27))
    assert limits.memory_limit() == 2**27


class BegunError(Exception):
    """The search would begin."""


def test_many_parameters_are_announced(monkeypatch):
    def maximise(*_):
        raise BegunError

    monkeypatch.setattr("lmmfast.fitting.residual.ResidualFit.maximise", maximise)
    y, X, groups, visits = clusters(400, 60)
    begun = time.process_time()
    with (
        pytest.warns(
            lf.SlowFitWarning,
            match=r"Unstructured\(.*\) over 60 visits, of 1,829 parameters, will take about \d "
            "minutes on 1 thread: AR1 or HeterogeneousAR1 has few parameters",
        ) as caught,
        pytest.raises(BegunError),
    ):
        lf.fit(y, X, groups, residual=lf.Unstructured(visits))
    assert caught[0].filename == __file__
    assert time.process_time() - begun < 5
    with pytest.raises(BegunError):
        lf.fit(y, X, groups, residual=lf.AR1(visits))


def test_large_dense_blocks_are_announced(monkeypatch):
    monkeypatch.setattr(limits, "MINUTES", 0.0)
    n = 5000
    a, b = RNG.integers(0, 900, n), RNG.integers(0, 700, n)
    y, X = RNG.standard_normal(n), np.ones((n, 1))
    with pytest.warns(lf.SlowFitWarning, match=r"a dense block of \d+ effects of 'group1', 'gro"):
        lf.fit(y, X, [a, b])


def test_many_visits_are_refused_for_the_hours(monkeypatch):
    monkeypatch.setenv("LMMFAST_MEMORY", "1T")
    y, X, groups, visits = clusters(200, 130)
    refused(
        lambda: lf.fit(y, X, groups, residual=lf.Unstructured(visits), n_jobs=1),
        r"over 130 visits, of 8,514 parameters, would take about \d+ hours on 1 thread, more than "
        "the 2 that are allowed: AR1 or HeterogeneousAR1",
    )


def test_a_hessian_by_differences_takes_no_hours(monkeypatch):
    y, X, groups, visits = clusters(80, 6)
    structure = lf.HeterogeneousAR1(visits)  # linear ones have a closed form
    calls = []
    differenced = "lmmfast.search.scoring.Search._differenced_hessian"
    monkeypatch.setattr(differenced, lambda *_: calls.append(1))
    want = lf.fit(y, X, groups, residual=structure, n_starts=1)
    assert calls
    calls.clear()
    monkeypatch.setattr("lmmfast.search.scoring.MOST_FOR_HESSIAN", 1.0)
    fit = lf.fit(y, X, groups, residual=structure, n_starts=1)
    assert fit.converged and not calls
    assert fit.llf == pytest.approx(want.llf, rel=1e-12)


def test_the_estimate_of_dense_work():
    sizes = limits.DenseSizes([(10, 3, 30), (40, 1, 5)], 4, 3, 2, 8, 0, 0)
    # Eight lanes side by side where clusters are small, whether there are patterns or not.
    factors = 8 * (1000 * (1 / 3 + 6) + 6 * 9 * 100) + 64000 * (1 / 3 + 6) + 6 * 9 * 1600
    products = 30 * 2 * 10 * 2 * 12 * 4 + 5 * 2 * 40 * 2 * 42 * 4
    assert sizes.operations() == pytest.approx(factors + products + 40 * 4**3, rel=1e-14)
    assert sizes.n_bytes(2) == 8 * (2 * 1 * 5 * 1600 + 12 * 16)
