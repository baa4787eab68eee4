"""Stages of fits, told on time: to a callback, to bars, to the log."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf

SLEEP = "Reaction ~ Days + (Days | Subject)"


def made(m: int = 1500, n_i: int = 4, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(m), n_i), np.tile(np.arange(float(n_i)), m)
    y = 1 + t + rng.normal(size=m)[g] + rng.normal(size=m * n_i)
    return pd.DataFrame({"y": y, "t": t, "g": g, "h": g // 10, "part": g % 6})


def stages(events: list[dict]) -> dict[str, tuple[int, int | None]]:
    """How many were done of how many at the end of each stage; they follow each other."""
    found: dict[str, tuple[int, int | None]] = {}
    open_stage = None
    for event in events:
        assert set(event) == {"stage", "done", "of", "unit", "seconds", "ended"}
        assert open_stage in (None, event["stage"])
        open_stage = None if event["ended"] else event["stage"]
        if event["ended"]:
            found[event["stage"]] = event["done"], event["of"]
    assert open_stage is None
    return found


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ t + (t | g)", {}),
        ("y ~ t + (1 | h/g)", {}),
        ("y ~ t", {"groups": "g", "residual": lf.AR1("t")}),
    ],
)
def test_stages_of_a_fit(formula, options):
    data, events = made(), []
    fit = lf.lmm(formula, data, progress=events.append, **options)
    n = len(data)
    evaluations = len(fit.trace)
    expected = {"read": (n, None), "pack": (n, n), "search": (evaluations, None)}
    assert stages(events) == expected
    searching = [event["done"] for event in events if event["stage"] == "search"]
    assert set(range(evaluations + 1)) <= set(searching)  # each evaluation by itself
    assert fit.llf == pytest.approx(lf.lmm(formula, data, **options).llf, rel=1e-12)


def test_arrays_and_small_fits():
    d, events = lf.datasets.sleepstudy(), []
    X = np.column_stack([np.ones(len(d)), d["Days"]])
    fit = lf.fit(d["Reaction"], X, d["Subject"], Z=X, progress=events.append)
    assert stages(events)["search"] == (len(fit.trace), None)


def test_the_search_can_be_stopped():
    def impatient(event: dict) -> None:
        if event["stage"] == "search" and event["done"] == 2:
            raise StopIteration

    with pytest.warns(lf.ConvergenceWarning):
        assert not lf.lmm("y ~ t + (t | g)", made(), progress=impatient).converged


def test_segments_and_responses():
    data, events = made(120), []
    lf.lmm_by("y ~ t + (1 | g)", data, "part", progress=events.append)
    assert stages(events) == {"read": (len(data), None), "segments": (6, 6)}
    events.clear()
    lf.lmm_by("y ~ bs(t, df=3) + (1 | g)", data, "part", progress=events.append)
    assert stages(events)["segments"] == (6, 6)
    assert [e["done"] for e in events if e["stage"] == "segments"] == [0, 1, 2, 3, 4, 5, 6, 6]
    events.clear()
    Y = np.random.default_rng(2).normal(size=(len(data), 600))
    lf.fit_many(Y, data[["t"]].assign(one=1.0), data["g"], progress=events.append)
    assert stages(events)["responses"] == (600, None)


def test_the_log_hears_of_each_stage_when_it_ends(caplog):
    heard = []
    with caplog.at_level(logging.INFO, logger="lmmfast"):
        lf.lmm(
            "y ~ t + (t | g)",
            made(),
            progress=lambda event: heard.append((event["stage"], len(caplog.records))),
        )
    texts = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in texts] == ["read", "pack", "search"]
    assert texts[1].startswith("pack: 6000 rows in ")
    assert dict(heard) == {"read": 0, "pack": 1, "search": 2}  # on time, not after the search
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="lmmfast"):
        lf.lmm(SLEEP, lf.datasets.sleepstudy())
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["read", "search"]


def test_lines_without_tqdm(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    lf.lmm("y ~ t + (t | g)", made(), progress=True)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and lines[0].startswith("read: 6,000 rows, ") and len(lines) == 3


def test_bars(capsys):
    pytest.importorskip("tqdm")
    lf.lmm("y ~ t + (t | g)", made(), progress=True)
    assert "pack: 100%" in capsys.readouterr().err


def test_neither():
    with pytest.raises(lf.DataError, match="progress=3"):
        lf.lmm(SLEEP, lf.datasets.sleepstudy(), progress=3)
