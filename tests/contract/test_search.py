"""The compiled search against the loop in Python: same maxima, same sentences, same trace."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
from samples import LEVELS

import lmmfast
from lmmfast.errors import ConvergenceWarning, LmmError
from lmmfast.search import optimum

MODELS = {
    "unstructured-1": ([1], [lmmfast.D.unstructured()]),
    "unstructured-2": ([2], [lmmfast.D.unstructured()]),
    "unstructured-3": ([3], [lmmfast.D.unstructured()]),
    "diag-2": ([2], [lmmfast.D.diag()]),
    "identity-3": ([3], [lmmfast.D.identity()]),
    "cs(hom)-3": ([3], [lmmfast.D.cs(hom=True)]),
    "unstructured-2+diag-1": ([2, 1], [lmmfast.D.unstructured(), lmmfast.D.diag()]),
}
SEEDS = range(6)


@pytest.fixture(params=sorted(LEVELS))
def core(request, monkeypatch):
    monkeypatch.setattr(optimum, "core", LEVELS[request.param])
    monkeypatch.setattr("lmmfast.fitting.pipeline.fit_small", lambda *_: None)


def formula(sizes: list[int]) -> str:
    if len(sizes) == 1:
        return "y ~ x0 + x1 + (" + "+".join(["1", "x0", "x1"][: sizes[0]]) + " | g)"
    return "y ~ x0 + x1 + (1 + x0 | g) + (0 + x1 | g)"


def table(sizes: list[int], seed: int) -> dict[str, np.ndarray]:
    """Few rows; in every other table the random effects are small, so that D is often singular."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(6, 40))
    g = np.repeat(np.arange(m), rng.integers(2, 9, m))
    x = rng.normal(size=(len(g), 2))
    b = rng.normal(size=(m, sum(sizes))) * (0.1 if seed % 2 else 1.0)
    Z = np.column_stack([np.ones(len(g)), x])[:, : sum(sizes)]
    y = 2.0 + x @ [1.0, -1.0] + np.sum(Z * b[g], axis=1) + rng.normal(size=len(g))
    return {"y": y, "x0": x[:, 0], "x1": x[:, 1], "g": g}


def watched(*args, **options):
    """A fit by the loop in Python."""
    return lmmfast.lmm(*args, callback=lambda entry: None, **options)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_same_as_python(core, model, reml):
    sizes, structures = MODELS[model]
    boundary = 0
    for seed in SEEDS:
        data = table(sizes, seed)
        options = {"D": structures, "reml": reml}
        fit = lmmfast.lmm(formula(sizes), data, **options)
        python = watched(formula(sizes), data, **options)
        assert fit.llf == pytest.approx(python.llf, rel=1e-10)
        assert fit.certificate.status == python.certificate.status
        assert fit.certificate.rank == python.certificate.rank
        scale = np.sqrt(np.max(python.theta)) * np.sqrt(np.abs(python.theta)) + 1e-3
        np.testing.assert_array_less(np.abs(fit.theta - python.theta), 1e-6 * scale)
        np.testing.assert_allclose(fit.params, python.params, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(fit.cov_params(), python.cov_params(), rtol=1e-5, atol=1e-8)
        on_boundary = fit.certificate.on_boundary
        boundary += on_boundary
        assert (fit.certificate.multiplier is None) is not on_boundary
        if on_boundary:
            assert fit.certificate.multiplier == pytest.approx(
                python.certificate.multiplier, rel=1e-4, abs=1e-6
            )
    assert boundary > 0 or model in ("identity-3",)


def first_climb(trace):
    """Entries before the first restart: the loop in Python goes roughly from further points."""
    steps = [e["step"] for e in trace]
    return trace[: steps.index("restart")] if "restart" in steps else trace


def test_same_trace(core):
    data = table([2], 0)
    start = lmmfast.lmm(formula([2]), data, reml=False)
    for options in ({}, {"start": start}, {"max_iter": 2}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit = lmmfast.lmm(formula([2]), data, **options)
            python = watched(formula([2]), data, **options)
        got, want = first_climb(fit.trace), first_climb(python.trace)
        assert [e["step"] for e in got] == [e["step"] for e in want]
        assert fit.certificate.status == python.certificate.status
        for ours, theirs in zip(got, want, strict=True):
            assert ours.keys() == theirs.keys()
            assert ours["evaluation"] == theirs["evaluation"]
            assert ours["llf"] == pytest.approx(theirs["llf"], rel=1e-10)
            np.testing.assert_allclose(ours["phi"], theirs["phi"], rtol=1e-6, atol=1e-6)


def test_same_errors(core):
    rng = np.random.default_rng(2)
    x = np.tile([0.0, 1.0], 30)
    data = {"y": rng.normal(size=60), "x0": x, "g": np.repeat(np.arange(30), 2)}
    for text, groups in (("(1 + x0 | g)", data["g"]), ("(1 | g)", np.arange(60))):
        messages = []
        for fit in (lmmfast.lmm, watched):
            with pytest.raises(LmmError) as error:
                fit(f"y ~ x0 + {text}", {**data, "g": groups})
            messages.append(str(error.value))
        assert messages[0] == messages[1]


def test_what_is_compiled(monkeypatch, caplog):
    """Linear structures on the moments engine; every evaluation is in the log."""
    data = table([2], 0)
    found = []
    original = optimum.compiled_maximise
    monkeypatch.setattr("lmmfast.fitting.pipeline.fit_small", lambda *_: None)
    monkeypatch.setattr(
        "lmmfast.fitting.pipeline.compiled_maximise",
        lambda *args: found.append(original(*args)) or found[-1],
    )
    with caplog.at_level(logging.DEBUG, "lmmfast"):
        fit = lmmfast.lmm(formula([2]), data)
    assert found[-1] is not None
    evaluations = [r for r in caplog.records if r.levelno == logging.DEBUG]
    assert len(evaluations) == len(fit.trace)
    lmmfast.lmm(formula([2]), data, D=lmmfast.D.cs())
    assert found[-1] is None
    lmmfast.lmm(formula([2]), data, engine="reference")
    assert found[-1] is None and len(found) == 3
    watched(formula([2]), data)
    assert len(found) == 3
