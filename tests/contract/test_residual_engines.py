"""Engines for residual structures against the reference engine, and that against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from residual_samples import MARKOV, STRUCTURES, longitudinal

import lmmfast as lf
from lmmfast._dispatch import core
from lmmfast.design.from_formula import FormulaDesign
from lmmfast.fitting.options import Options
from lmmfast.fitting.prepare import choose_covariance
from lmmfast.fitting.residual import ResidualFit
from lmmfast.grouping.clusters import gather
from lmmfast.residual import definitions, structures
from lmmfast.search.objective import Evaluation

RANDOM = {0: "", 1: " + (1 | id)", 2: " + (1 + t | id)"}


def prepare(
    name: str, engine: str, q: int, weights: bool, data: Any, reml: bool = True
) -> ResidualFit:
    """Everything before the search."""
    design = FormulaDesign(
        "y ~ t + arm" + RANDOM[q],
        data,
        weights="w" if weights else None,
        groups="id",
        residual=STRUCTURES[name](),
    )
    clusters = gather(design.keys)
    options = Options(reml=reml, engine=engine, n_jobs=2)
    return ResidualFit(design, clusters, choose_covariance(design), options)


def somewhere(fit: ResidualFit, seed: int = 3) -> tuple[Any, Any]:
    """Lambda and kappa well inside their ranges."""
    rng = np.random.default_rng(seed)
    q = fit.covariance.q
    Lambda = np.tril(rng.normal(0, 0.5, (q, q))) + np.eye(q)
    phi = fit.covariance.starts[0] + rng.uniform(-0.2, 0.2, fit.model.parameters.n_params)
    return Lambda, fit.model.parameters.kappa(phi)


def cases() -> list[Any]:
    """Structure, engine, q, weights, pattern-sharing data."""
    out = []
    for name in STRUCTURES:
        for k, (q, weights) in enumerate([(0, False), (1, True), (2, False)]):
            regular = (len(out) + k) % 2 == 0
            out.append(pytest.param(name, "dense", q, weights, regular))
            if name in MARKOV:
                out.append(pytest.param(name, "markov", q, weights, not regular))
    return out


@pytest.mark.parametrize(("name", "engine", "q", "weights", "regular"), cases())
def test_engine_equals_reference(
    name: str, engine: str, q: int, weights: bool, regular: bool
) -> None:
    data = longitudinal(len(name), m=60 if regular else 25, regular=regular)
    fast, slow = (prepare(name, e, q, weights, data) for e in (engine, "reference"))
    Lambda, kappa = somewhere(fast)
    at_fast, at_slow = fast.engine.at(kappa), slow.engine.at(kappa)
    assert at_fast.name == engine
    for with_kr in (False, True):
        got, wanted = at_fast.totals(Lambda, with_kr), at_slow.totals(Lambda, with_kr)
        assert got.logdet == pytest.approx(wanted.logdet, rel=1e-11, abs=1e-11)
        for part in ("gram", "trace", "quad", "info", *(["kr"] if with_kr else [])):
            a, b = getattr(got, part), getattr(wanted, part)
            size = 1e-11 * max(1.0, np.max(np.abs(b), initial=0.0))  # a centred G adds up to zero
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=size, err_msg=part)
    p1, root = got.gram.shape[0], np.tril(np.ones((q, q)))
    c = np.append(np.linspace(-1, 1, p1 - 1), 1.0)
    for what, arguments in {
        "random_effects": (Lambda, root, c),
        "random_effects_cov": (Lambda, root),
        "whitened": (Lambda, c),
    }.items():
        a, b = (getattr(e, what)(*arguments) for e in (at_fast, at_slow))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10, err_msg=what)


@pytest.mark.parametrize("name", list(STRUCTURES))
@pytest.mark.parametrize("reml", [False, True])
def test_score_is_the_derivative_of_the_likelihood(name: str, reml: bool) -> None:
    fit = prepare(name, "reference", 1, True, longitudinal(7, m=15), reml)
    covariance, parameters = fit.covariance, fit.model.parameters
    Lambda, kappa = somewhere(fit)
    D = Lambda @ Lambda.T

    def loglik(x: Any) -> float:
        totals = fit.engine.at(x[1:]).totals(np.sqrt(x[:1, None]))
        return Evaluation(fit.problem, totals).loglik

    x = np.append(D[0], kappa)
    score = Evaluation(fit.problem, fit.engine.at(kappa).totals(Lambda)).score
    for k in range(len(x)):
        h = 1e-5 * np.eye(len(x))[k]
        slope = (loglik(x + h) - loglik(x - h)) / 2e-5
        assert slope == pytest.approx(score[k], rel=1e-6, abs=1e-6), k
    assert covariance.n_params == 1 + parameters.n_params


def test_every_compiled_structure_has_a_definition() -> None:
    assert {*definitions.DISTANCES, *definitions.TABLES} == set(core.residual_structures())


def test_every_public_structure_is_among_the_samples() -> None:
    public = {
        name
        for name, value in vars(structures).items()
        if isinstance(value, type)
        and issubclass(value, structures.ResidualStructure)
        and not name.startswith("_")
        and name != "ResidualStructure"
    }
    assert public == {name.split()[0] for name in STRUCTURES}
    assert public <= set(lf.__all__)


@pytest.mark.parametrize("name", ["OU nugget", "Unstructured", "AR1 by"])
def test_threads_do_not_matter(name: str) -> None:
    data = longitudinal(2, m=400)
    fits = [
        lf.lmm("y ~ t", data, groups="id", residual=STRUCTURES[name](), n_jobs=jobs)
        for jobs in (1, 2, 5)
    ]
    assert len({fit.llf for fit in fits}) == 1
    assert len({tuple(fit.theta) for fit in fits}) == 1


@pytest.mark.parametrize(("n", "m"), [(40, 3), (40, 12), (150, 2), (150, 11)])
@pytest.mark.parametrize("q", [0, 2])
def test_long_clusters(n: int, m: int, q: int) -> None:
    """In lanes or by blocks, and by recursion: the same totals."""
    rng = np.random.default_rng(n + m)
    t = np.sort(rng.uniform(0, n / 2, (m, n)), axis=1)
    data = pd.DataFrame(
        {"y": rng.normal(size=m * n), "t": t.ravel(), "w": rng.uniform(1, 2, m * n)}
    )
    data["id"], data["arm"] = np.repeat(np.arange(m), n), np.repeat(np.arange(m) % 2, n)
    fits = [prepare("OU nugget", e, q, True, data) for e in ("dense", "markov", "reference")]
    Lambda, kappa = somewhere(fits[0])
    dense, markov, wanted = (fit.engine.at(kappa).totals(Lambda, with_kr=True) for fit in fits)
    for got in (dense, markov):
        for part in ("logdet", "gram", "trace", "quad", "info", "kr"):
            a, b = getattr(got, part), getattr(wanted, part)
            size = 1e-11 * np.max(np.abs(b))
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=size, err_msg=part)
