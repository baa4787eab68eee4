"""Rows gathered by cluster: every type and order of keys gives the same clusters."""

import numpy as np
import pytest

from lmmfast.data.keys import GroupKeys
from lmmfast.grouping.clusters import MANY_ROWS, gather

TYPES = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


def check(values, clusters):
    """Each key once, its rows together and ascending, none left out."""
    order = np.arange(len(values)) if clusters.order is None else clusters.order
    assert np.array_equal(np.sort(order), np.arange(len(values)))
    assert len(np.unique(clusters.keys)) == clusters.m == len(np.unique(values))
    assert np.array_equal(np.repeat(clusters.keys, clusters.sizes), values[order])
    assert all(
        np.all(np.diff(order[a:b]) > 0)
        for a, b in zip(clusters.ptr[:-1], clusters.ptr[1:], strict=True)
    )
    assert np.array_equal(clusters.reported(clusters.keys), np.unique(values))


@pytest.mark.parametrize("n", [50, MANY_ROWS, 40_000])
@pytest.mark.parametrize("dtype", TYPES)
def test_integers_in_any_order(dtype, n):
    rng = np.random.default_rng(n)
    info = np.iinfo(dtype)
    for low in (info.min, info.max - 100, 0):
        wide = rng.integers(0, 100, n).astype(np.uint64) + np.uint64(low % (1 << 64))
        values = wide.astype(dtype)
        check(values, gather(GroupKeys(values)))
        check(np.sort(values), gather(GroupKeys(np.sort(values))))


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_many_rows_any_number_of_threads(n_jobs):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 200_000, 600_000)
    one, many = gather(GroupKeys(values), 1), gather(GroupKeys(values), n_jobs)
    assert np.array_equal(one.order, many.order)
    assert np.array_equal(one.ptr, many.ptr)
    assert np.array_equal(many.order, np.argsort(values, kind="stable"))


@pytest.mark.parametrize("n", [40, 40_000])
def test_contiguous_keys_are_left_where_they_are(n):
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 9, n)
    for keys in (np.arange(n), rng.permutation(n), rng.permutation(n) * 10**12, rng.random(n)):
        values = np.repeat(keys, sizes)
        clusters = gather(GroupKeys(values))
        assert clusters.order is None
        check(values, clusters)


def test_far_apart_and_floating_keys_out_of_order():
    rng = np.random.default_rng(3)
    for pool in (rng.integers(-(2**62), 2**62, 900), rng.random(900)):
        values = rng.choice(pool, 20_000)
        check(values, gather(GroupKeys(values)))


def test_strided_keys():
    rng = np.random.default_rng(4)
    values = rng.integers(0, 50, (20_000, 3))[:, 1]
    check(values, gather(GroupKeys(values)))


@pytest.mark.parametrize("n", [100, 2 * MANY_ROWS])
def test_keys_that_lie_anyhow_in_memory(n):
    values = np.sort(np.random.default_rng(2).integers(0, n // 3, n))
    unaligned = np.frombuffer(b"x" + values.tobytes(), np.int64, offset=1)
    strided = np.repeat(values, 2)[::2]
    swapped = values.astype(values.dtype.newbyteorder())
    for keys in (unaligned, strided, swapped, values[::-1], unaligned[::-1]):
        check(np.asarray(keys), gather(GroupKeys(keys)))
