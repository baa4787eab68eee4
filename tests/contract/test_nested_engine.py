"""The nested engine beside dense algebra: totals and random effects, all shapes of trees."""

from dataclasses import dataclass

import numpy as np
import pytest
from samples import assert_totals

import lmmfast.engines.nested as nested
from lmmfast.engines.nested import NestedEngine, build_nested
from lmmfast.engines.reference_levels import LevelsReferenceEngine
from lmmfast.errors import DataError
from lmmfast.grouping.levels import Levels


@dataclass
class Data:
    A: np.ndarray
    Z: np.ndarray
    weights: np.ndarray | None
    levels: Levels

    def working(self, rows):
        weights = None if self.weights is None else self.weights[rows]
        return (
            np.ascontiguousarray(self.A[rows]),
            np.ascontiguousarray(self.Z[rows]),
            weights,
        )

    def engine(self, n_threads: int = 1) -> NestedEngine:
        return build_nested(self.levels, self.working, n_threads)

    def reference(self) -> LevelsReferenceEngine:
        return LevelsReferenceEngine(self.A, self.Z, self.weights, self.levels)

    def Lambda(self, rng, scales=None) -> np.ndarray:
        q = self.Z.shape[1]
        out = np.zeros((q, q))
        for f, columns in enumerate(self.levels.columns):
            size = 1.0 if scales is None else scales[f]
            own = np.tril(rng.uniform(0.3, 1.0, (len(columns),) * 2)) * size
            out[np.ix_(columns, columns)] = own
        return out


def tree(rng, fans, sizes, qs, p=2, weights=False, shuffled=False) -> Data:
    """Fans (m_0, at most so many inside each, …); rows of an innermost unit drawn from sizes."""
    codes = [np.arange(fans[0])]
    for fan in fans[1:]:
        parents = np.repeat(np.arange(len(codes[-1])), rng.integers(1, fan + 1, len(codes[-1])))
        codes = [of_level[parents] for of_level in codes] + [np.arange(len(parents))]
    rows = np.repeat(np.arange(len(codes[-1])), rng.choice(sizes, len(codes[-1])))
    codes = [of_level[rows] for of_level in codes]
    n, q = len(rows), sum(qs)
    order = rng.permutation(n) if shuffled else np.arange(n)
    codes = [rng.permutation(of_level.max() + 1)[of_level][order] for of_level in codes]
    X, Z = rng.standard_normal((n, p)), rng.standard_normal((n, q))
    X[:, 0] = 1.0
    columns, at = [], 0
    for size in qs:
        columns.append(np.arange(at, at + size))
        Z[:, at] = 1.0
        at += size
    y = rng.standard_normal(n) + sum(
        rng.standard_normal(of_level.max() + 1)[of_level] for of_level in codes
    )
    # Factors in an order other than that of the tree.
    places = np.roll(np.arange(len(fans)), 1)
    levels = Levels(
        tuple(f"f{k}" for k in places),
        tuple(columns[k] for k in places),
        tuple(codes[k] for k in places),
        tuple(np.arange(codes[k].max() + 1) for k in places),
    )
    w = rng.uniform(0.1, 4.0, n) if weights else None
    return Data(np.column_stack([X, y]), Z, w, levels)


def assert_same(data: Data, Lambda, tolerance=1e-11, kr=True):
    got, want = data.engine(), data.reference()
    assert_totals(got.totals(Lambda, kr), want.totals(Lambda, kr), tolerance)
    assert_totals(got.totals(Lambda), want.totals(Lambda), tolerance)


def assert_close(got, want, tolerance):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-300)


TREES = {
    2: (7, 12),
    3: (3, 5, 9),
    4: (2, 3, 3, 4),
}


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("depth", TREES)
def test_every_depth(depth, q, weights):
    rng = np.random.default_rng([depth, q])
    data = tree(rng, TREES[depth], [1, 2, 4, 5], [q] * depth, weights=weights, shuffled=weights)
    Lambda = data.Lambda(rng)
    assert_same(data, Lambda)
    got, want = data.engine(), data.reference()
    root, c = data.Lambda(rng), rng.standard_normal(data.A.shape[1])
    assert np.allclose(got.gram, want.gram, rtol=1e-12)
    assert_close(got.random_effects(Lambda, root, c), want.random_effects(Lambda, root, c), 1e-11)
    assert_close(got.random_effects_cov(Lambda, root), want.random_effects_cov(Lambda, root), 1e-11)


@pytest.mark.parametrize("qs", [(1, 2), (2, 1), (3, 2), (2, 3), (1, 5), (1, 2, 3), (3, 1, 2)])
def test_different_numbers_of_effects(qs):
    rng = np.random.default_rng([9, *qs])
    data = tree(rng, (4, 6, 4)[: len(qs)], [2, 6, 9], qs, weights=True)
    Lambda = data.Lambda(rng)
    assert_same(data, Lambda, kr=max(qs) < 5)
    got, want = data.engine(), data.reference()
    c = rng.standard_normal(data.A.shape[1])
    pairs = (
        (got.random_effects(Lambda, Lambda, c), want.random_effects(Lambda, Lambda, c)),
        (got.random_effects_cov(Lambda, Lambda), want.random_effects_cov(Lambda, Lambda)),
    )
    for found, expected in pairs:
        assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("p", [1, 3, 4, 5, 8, 14])
def test_every_number_of_columns(p):
    rng = np.random.default_rng(p)
    data = tree(rng, (5, 20), [1, 2, 3], [1, 1], p=p)
    assert_same(data, data.Lambda(rng))


@pytest.mark.parametrize("fan", [1, 7, 8, 9, 17])
@pytest.mark.parametrize("m", [1, 2, 8, 15, 16, 17, 66])
def test_every_number_of_units(m, fan):
    rng = np.random.default_rng([m, fan])
    data = tree(rng, (m, fan), [1, 2], [1, 1])
    assert_same(data, data.Lambda(rng))


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("size", [4, 5, 8, 9, 31, 32, 33, 70])
def test_every_length_of_a_unit(size, q):
    rng = np.random.default_rng([size, q])
    data = tree(rng, (3, 4), [1, size], [1, q], weights=True)
    assert_same(data, data.Lambda(rng))


@pytest.mark.parametrize("zero", [[0], [1], [2], [0, 1], [0, 2], [0, 1, 2]])
@pytest.mark.parametrize("q", [1, 2])
def test_zero_variances(q, zero):
    rng = np.random.default_rng(3)
    data = tree(rng, (4, 5, 4), [1, 2, 3], [q] * 3)
    scales = np.ones(3)
    scales[zero] = 0.0
    Lambda = data.Lambda(rng, scales)
    assert_same(data, Lambda)
    got, want = data.engine(), data.reference()
    root = data.Lambda(rng)
    assert_close(got.random_effects_cov(Lambda, root), want.random_effects_cov(Lambda, root), 1e-11)


@pytest.mark.parametrize("defect", ["zero", "twice", "constant", "singletons"])
def test_columns_of_Z_that_depend_on_each_other(defect):
    rng = np.random.default_rng(4)
    sizes = [1] if defect == "singletons" else [3, 5]
    data = tree(rng, (4, 6, 4), sizes, [2, 2, 2])
    if defect == "zero":
        data.Z[:, 1::2] = 0.0
    elif defect == "twice":
        data.Z[:, 1::2] = data.Z[:, ::2]
    elif defect == "constant":  # within the outermost factor
        data.Z[:, 1::2] = data.levels.codes[1][:, None] - 1.5
    assert_same(data, data.Lambda(rng))


def balanced(rng, m, fan, n_i, p=3) -> Data:
    """Units of one size, so that they are put together; X has columns of every level."""
    patient = np.repeat(np.arange(m * fan), n_i)
    center = patient // fan
    n = len(patient)
    X = np.column_stack(
        [np.ones(n), np.tile(np.arange(n_i), m * fan), rng.standard_normal(m)[center]]
    )[:, :p]
    y = (
        rng.standard_normal(m)[center]
        + rng.standard_normal(m * fan)[patient]
        + rng.standard_normal(n)
    )
    levels = Levels(
        ("center", "patient"),
        (np.array([0]), np.array([1])),
        (center, patient),
        (np.arange(m), np.arange(m * fan)),
    )
    return Data(np.column_stack([X, y]), np.ones((n, 2)), None, levels)


def test_units_of_one_design_put_together():
    rng = np.random.default_rng(5)
    data = balanced(rng, 6, 60, 3)
    engine = data.engine()
    assert engine._evaluated is not engine._tree
    Lambda = data.Lambda(rng)
    assert_same(data, Lambda)
    alone = NestedEngine(engine.units, engine.levels, 1, share=False)
    assert_totals(engine.totals(Lambda, True), alone.totals(Lambda, True), 1e-13)
    c = rng.standard_normal(data.A.shape[1])
    assert_close(
        engine.random_effects(Lambda, Lambda, c),
        data.reference().random_effects(Lambda, Lambda, c),
        1e-11,
    )


@pytest.mark.parametrize("scales", [(1e3, 1.0), (1.0, 1e3), (1e3, 1e3), (1e3, 0.0), (30.0, 1e3)])
def test_variances_far_from_that_of_the_residuals(scales):
    """Every entry on its own, also of columns that are constant within units."""
    rng = np.random.default_rng(6)
    data = balanced(rng, 4, 5, 3)
    Lambda = np.diag(scales)
    got, want = data.engine().totals(Lambda, True), exact_totals(data, Lambda)
    for name, tolerance in {"gram": 1e-11, "trace": 1e-11, "info": 1e-11, "quad": 1e-10}.items():
        a, b = getattr(got, name), want[name]
        size = np.sqrt(np.abs(np.einsum("...ii->...i", b))) if b.ndim > 1 else np.abs(b) ** 0.5
        bound = size[..., :, None] * size[..., None, :] if b.ndim > 1 else np.abs(b)
        assert np.all(np.abs(a - b) <= tolerance * bound + 1e-300), name


def exact_totals(data: Data, Lambda):
    """The totals in 50 digits, by Woodbury on the effects of one intercept per unit."""
    mpmath = pytest.importorskip("mpmath")
    mp = mpmath.mp.clone()
    mp.dps = 50
    A = mp.matrix(data.A.tolist())
    n = len(data.A)
    codes = data.levels.codes
    D = [mp.mpf(x) ** 2 for x in np.diag(Lambda)]
    V = mp.matrix(n, n)
    same = [np.equal.outer(code, code) for code in codes]
    for i in range(n):
        for j in range(n):
            V[i, j] = sum(D[f] for f in range(2) if same[f][i, j]) + (i == j)
    V_inv = V**-1
    dV = [mp.matrix(of.astype(int).tolist()) for of in same]
    VdV = [V_inv * of for of in dV]
    array = lambda m: np.array(m.tolist(), dtype=float)  # noqa: E731
    info, trace, quad = np.zeros((3, 3)), np.zeros(3), np.zeros((3, *[data.A.shape[1]] * 2))
    at = [0, 2]
    for k in range(2):
        trace[at[k]] = float(sum(VdV[k][i, i] for i in range(n)))
        quad[at[k]] = array(A.T * VdV[k] * V_inv * A)
        for other in range(2):
            product = VdV[k] * VdV[other]
            info[at[k], at[other]] = float(sum(product[i, i] for i in range(n))) / 2
    return {"gram": array(A.T * V_inv * A), "trace": trace, "info": info, "quad": quad}


@pytest.mark.parametrize("shape", [((40, 30), 1), ((5, 60, 9), 2), ((130, 4, 4), 1)])
def test_threads_change_no_bit(shape, monkeypatch):
    fans, q = shape
    rng = np.random.default_rng(8)
    data = tree(rng, fans, [1, 3, 9, 40], [q] * len(fans), weights=True, shuffled=True)
    Lambda = data.Lambda(rng)
    monkeypatch.setattr(nested, "CHUNK_ROWS", 2000)
    one = data.engine(1)
    for n_threads in (2, 5):
        other = data.engine(n_threads)
        for name, value in vars(one.totals(Lambda, True)).items():
            assert np.array_equal(value, getattr(other.totals(Lambda, True), name)), name
        c = np.ones(data.A.shape[1])
        for a, b in zip(
            one.random_effects(Lambda, Lambda, c),
            other.random_effects(Lambda, Lambda, c),
            strict=True,
        ):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("chunk", [1, 17, 100, 400])
def test_lots_of_rows(chunk, monkeypatch):
    """Units longer than a lot, lots that end within units of every level."""
    rng = np.random.default_rng(chunk)
    data = tree(rng, (2, 4, 30), [1, 2, 40], [1, 1, 1], weights=True)
    Lambda = data.Lambda(rng)
    whole = data.engine().totals(Lambda, True)
    monkeypatch.setattr(nested, "CHUNK_ROWS", chunk)
    assert_totals(data.engine().totals(Lambda, True), whole, 1e-12)


def test_order_of_rows_and_labels_change_nothing():
    rng = np.random.default_rng(10)
    data = tree(rng, (4, 7, 5), [1, 2, 5], [1, 2, 1])
    order = rng.permutation(len(data.A))
    labels = [rng.permutation(count) for count in data.levels.counts]
    moved = Levels(
        data.levels.names,
        data.levels.columns,
        tuple(label[code[order]] for label, code in zip(labels, data.levels.codes, strict=True)),
        data.levels.labels,
    )
    other = Data(data.A[order], data.Z[order], None, moved)
    Lambda, c = data.Lambda(rng), rng.standard_normal(data.A.shape[1])
    assert_totals(other.engine().totals(Lambda, True), data.engine().totals(Lambda, True), 1e-12)
    found = other.engine().random_effects(Lambda, Lambda, c)
    found = [effects[label] for effects, label in zip(found, labels, strict=True)]
    assert_close(found, data.engine().random_effects(Lambda, Lambda, c), 1e-11)


def test_what_cannot_be_packed_is_refused():
    rng = np.random.default_rng(11)
    data = tree(rng, (4, 5), [2], [1, 1], weights=True)
    data.weights[3] = 0.0
    with pytest.raises(DataError, match="weights must be positive"):
        data.engine()
    data.weights[3] = 1.0
    data.A[5, 1] = 1e200
    with pytest.raises(DataError, match="scaled extremely"):
        data.engine()
    crossed = Levels(
        data.levels.names,
        data.levels.columns,
        (np.arange(len(data.A)) % 3, np.arange(len(data.A)) % 4),
        (np.arange(3), np.arange(4)),
    )
    with pytest.raises(ValueError, match="chain"):
        build_nested(crossed, data.working, 1)
