"""Engines for residual structures against the reference engine, and that against differences."""

from __future__ import annotations

from dataclasses import replace
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
from lmmfast.residual import kinds, registry
from lmmfast.residual.kind import AT_THE_END, OFF_THE_END, Kind, Setting, TableKind
from lmmfast.search.objective import Evaluation
from lmmfast.search.scoring import Search

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
@pytest.mark.parametrize("q", [0, 2])
def test_contracted_second_order_sums(name: str, q: int) -> None:
    """Traces of W'kr W, of columns that do and do not fit at a time."""
    data = longitudinal(len(name), m=30, regular=q == 0)
    fit = prepare(name, "dense", q, q == 0, data)
    Lambda, kappa = somewhere(fit)
    engine: Any = fit.engine.at(kappa)
    kr = engine.totals(Lambda, with_kr=True).kr
    rng = np.random.default_rng(2)
    W = [rng.normal(size=(kr.shape[-1], size)) for size in (1, 5, 70)]
    wanted = np.array([np.einsum("klij,iw,jw->kl", kr, w, w) for w in W])
    wanted = 0.5 * (wanted + wanted.swapaxes(1, 2))
    found = engine.contracted(Lambda, W)
    size = np.abs(wanted).max(initial=0.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10 * size)


LINEAR = [
    lf.Unstructured("visit"),
    lf.Unstructured("visit", by="arm"),
    lf.CompoundSymmetry(),
    lf.Toeplitz("visit"),
    lf.Toeplitz("visit", bands=2),
]


@pytest.mark.parametrize("structure", LINEAR, ids=str)
@pytest.mark.parametrize(("random", "reml"), [("", True), (" + (1 | id)", False)])
def test_hessian_of_linear_structures(structure: Any, random: str, reml: bool) -> None:
    """In closed form as by differences of the score, away from the maximum too."""
    data = longitudinal(4, m=40, regular=False)
    design = FormulaDesign("y ~ t" + random, data, groups="id", residual=structure)
    options = Options(reml=reml, engine="dense", n_jobs=1)
    fit = ResidualFit(design, gather(design.keys), choose_covariance(design), options)
    covariance = fit.covariance
    assert covariance.linear_entries is not None
    phi = np.append(covariance.random.phi(0.6 * np.eye(covariance.q)), covariance.starts[0] + 0.05)
    search = Search(fit.problem, covariance, fit.engine, difference=True)
    found = search.evaluate(phi, "start").H
    search.covariance = replace(covariance, linear_entries=None)
    wanted = search.evaluate(phi, "start").H
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


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
    assert {*registry.DISTANCES, *registry.TABLES} == set(core.residual_structures())


def test_every_public_structure_is_among_the_samples() -> None:
    public = set(kinds.__all__)
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


@pytest.mark.parametrize("kind", registry.KINDS.values(), ids=list(registry.KINDS))
@pytest.mark.parametrize("margin", [AT_THE_END, OFF_THE_END])
def test_natural_parameters_give_psi_back(kind: Kind, margin: float) -> None:
    """Each structure has as many natural parameters and names as parameters, and a way back."""
    T, bands = 4, 2
    n = kind.n_psi(T, bands)
    levels = ("a", "b", "c", "d")
    setting = Setting("x", None, levels, T, n, unit=2.0, closest=0.5, report="range")
    psi = kind.moderate(n)
    natural = np.real(kind.natural(psi, setting))
    assert len(natural) == len(kind.names(setting)) == len(psi) == n
    np.testing.assert_allclose(kind.psi(natural, setting, margin), psi, rtol=1e-10)
    assert kind.at_end(psi, setting) is None
    if isinstance(kind, TableKind):
        E = np.real(registry.TABLES[kind.name](psi, T))
        assert all(len(start) == n for start in kind.starts(E, bands))


def test_names_of_the_registry_are_those_of_the_core() -> None:
    assert all(name == kind.name for name, kind in registry.KINDS.items())
    compiled = core.residual_structures()
    assert {n for n in registry.KINDS if compiled[n]["kind"] == "table"} == set(registry.TABLES)
