"""Residual structures within the innermost units of nested factors, beside dense algebra."""

import numpy as np
import pytest
from residual_samples import MARKOV, STRUCTURES, longitudinal
from samples import assert_totals
from test_nested_engine import assert_close

from lmmfast.design.from_formula import FormulaDesign
from lmmfast.engines.nested_residual import build_nested_residual
from lmmfast.engines.reference import ReferenceEngine
from lmmfast.engines.reference_levels import LevelsReferenceEngine
from lmmfast.grouping.clusters import gather
from lmmfast.grouping.levels import Levels
from lmmfast.residual.model import bind

# Names of the structures, the engine of the innermost units.
CASES = [(name, "dense") for name in STRUCTURES] + [(name, "markov") for name in MARKOV]


def problem(name, engine, qs, weights, m=24, n_threads=1):
    """Engine, its reference, and a point: subjects in centres in regions."""
    data = longitudinal(1, m=m)
    rng = np.random.default_rng(len(name))
    design = FormulaDesign("y ~ t", data, weights=None, groups="id", residual=STRUCTURES[name]())
    clusters = gather(design.keys)
    model = bind(design.residual, design.residual_columns, clusters)
    subject = np.empty(len(data), dtype=np.int64)
    for i in range(clusters.m):
        rows = slice(clusters.ptr[i], clusters.ptr[i + 1])
        subject[rows if clusters.order is None else clusters.order[rows]] = i
    center = rng.integers(0, 7, clusters.m)
    codes = [subject, np.unique(center, return_inverse=True)[1][subject]]
    if len(qs) == 3:
        codes.append(codes[1] // 3)
    columns = np.split(np.arange(sum(qs)), np.cumsum(qs)[:-1])
    levels = Levels(
        tuple(f"f{k}" for k in range(len(qs))),
        tuple(columns),
        tuple(codes),
        tuple(np.arange(code.max() + 1) for code in codes),
    )
    n, q = len(data), sum(qs)
    A = np.column_stack([np.ones(n), data["t"], data["y"]])
    Z = rng.standard_normal((n, q))
    Z[:, [c[0] for c in columns]] = 1.0
    w = rng.uniform(0.5, 2.0, n) if weights else None

    def working(rows):
        return A[rows].copy(), Z[rows].copy(), None if w is None else w[rows]

    built = build_nested_residual(levels, working, model, n_threads, engine)
    order = model.rows
    ordered = Levels(
        levels.names, levels.columns, tuple(code[order] for code in codes), levels.labels
    )
    inner = ReferenceEngine(
        A[order], Z[np.ix_(order, columns[0])], None if w is None else w[order], model.ptr, model
    )
    reference = LevelsReferenceEngine(
        A[order], Z[order], None if w is None else w[order], ordered, inner
    )
    Lambda = np.zeros((q, q))
    for own in columns:
        Lambda[np.ix_(own, own)] = np.tril(rng.uniform(0.3, 1.0, (len(own),) * 2))
    phi = rng.uniform(-0.2, 0.2, model.parameters.n_params)
    kappa = model.parameters.kappa(phi)
    return built.at(kappa), reference.at(kappa), Lambda


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_every_structure(name, engine):
    weights = len(name) % 2 == 0
    got, want, Lambda = problem(name, engine, (1, 1), weights)
    assert_totals(got.totals(Lambda, True), want.totals(Lambda, True), 1e-9)
    assert_totals(got.totals(Lambda), want.totals(Lambda), 1e-9)
    assert np.allclose(got.gram, want.gram, rtol=1e-12)


@pytest.mark.parametrize("engine", ["dense", "markov"])
@pytest.mark.parametrize("qs", [(2, 1), (1, 2), (2, 2), (1, 1, 1), (2, 1, 2)])
def test_every_tree(qs, engine):
    got, want, Lambda = problem("OU nugget", engine, qs, True)
    assert_totals(got.totals(Lambda, True), want.totals(Lambda, True), 1e-9)
    c, root = np.array([0.3, -0.2, 1.0]), 2.0 * Lambda
    assert_close(got.random_effects(Lambda, root, c), want.random_effects(Lambda, root, c), 1e-9)
    assert_close(got.random_effects_cov(Lambda, root), want.random_effects_cov(Lambda, root), 1e-9)
    zero = 0.0 * Lambda
    assert_totals(got.totals(zero), want.totals(zero), 1e-9)


@pytest.mark.parametrize("engine", ["dense", "markov"])
def test_threads_change_no_bit(engine):
    one, _, Lambda = problem("OU nugget", engine, (1, 1), False, m=900)
    want = vars(one.totals(Lambda, True))
    for n_threads in (2, 5):
        other = problem("OU nugget", engine, (1, 1), False, m=900, n_threads=n_threads)[0]
        for name, value in vars(other.totals(Lambda, True)).items():
            assert np.array_equal(value, want[name]), name
