"""Many fits at once, and one very small fit: workloads of their own, as the child and its parent.

``small`` fits sleepstudy over and over; ``many-responses`` fits 1,000 responses on one design;
``many-models`` fits one model to each of 10,000 segments. A library that would take too long fits
only some of them, and the table compares the time of one fit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers import PEERS
from process import BENCHMARKS, give_back_memory, serve, start, timed

SUBJECTS, ROWS_EACH, RESPONSES = 200, 5, 1_000
SEGMENTS, SEGMENT_CLUSTERS = 10_000, 50
SLOPE = "y ~ t + (t | id)"
SLEEPSTUDY = "Reaction ~ Days + (Days | Subject)"
Fits = Callable[[], np.ndarray]  # carries out all fits; log-likelihoods


@dataclass(frozen=True)
class Route:
    """One way to do a workload: library, what is called, how many of the fits are carried out."""

    name: str
    route: str
    prepare: Callable[[dict[str, Any], int], Fits] | None  # of the data and fits; None: R
    fits: int


class Many(NamedTuple):
    """A workload: what it is, how to make its data from a seed, and all routes."""

    about: str
    make: Callable[[int], dict[str, np.ndarray]]
    routes: list[Route]


def measurements(workload: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all routes of a workload, each in a process of its own."""
    about, make, routes = WORKLOADS[workload]
    peers = {peer.name: peer for peer in PEERS.values()}
    done = []
    with tempfile.TemporaryDirectory() as folder:
        for name, column in make(options.seed).items():
            np.save(Path(folder, f"{name}.npy"), column)
        for index, route in enumerate(routes):
            if options.peers and route.name not in options.peers:
                continue
            if not peers[route.name].available():
                continue
            job = {
                "workload": workload,
                "route": index,
                "folder": folder,
                "fits": max(1, route.fits // 10) if options.quick else route.fits,
                "repeats": options.repeats,
                "seconds": options.seconds,
            }
            figures = start(command, job, 60 + 5 * options.budget)
            place = {"workload": workload, "about": about, "fits": job["fits"]}
            done.append(place | {"name": route.name, "route": route.route} | figures)
            told = figures.get("failed") or f"{min([figures['cold'], *figures['warm']]):.4g} s"
            print(f"{workload}  {route.name}, {route.route}: {told}", file=sys.stderr, flush=True)
    return done


def command(job: dict[str, Any], path: Path) -> list[str]:
    """Command of the child: this file, or many.R."""
    if WORKLOADS[job["workload"]].routes[job["route"]].prepare is not None:
        return [sys.executable, str(BENCHMARKS / "many.py"), str(path)]
    values = (job[name] for name in ("workload", "folder", "fits", "repeats", "seconds", "out"))
    return ["Rscript", "--vanilla", str(BENCHMARKS / "many.R"), *map(str, values)]


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Load the data, import the library, carry out all fits several times."""
    route = WORKLOADS[job["workload"]].routes[job["route"]]
    assert route.prepare is not None
    data = {path.stem: np.load(path) for path in Path(job["folder"]).glob("*.npy")}
    warnings.simplefilter("ignore")  # singular fits among the many
    next(peer for peer in PEERS.values() if peer.name == route.name).prepare()
    work = route.prepare(data, job["fits"])
    give_back_memory()
    loglik, cold = timed(work)
    warm: list[float] = []
    while len(warm) < job["repeats"] and cold + sum(warm) < job["seconds"]:
        warm.append(timed(work)[1])
    return {"cold": cold, "warm": warm, "loglik": float(np.ravel(loglik)[0])}


# Data


def sleepstudy(seed: int) -> dict[str, np.ndarray]:
    """The data set that lme4 and lmmfast both bring along."""
    import lmmfast

    frame = lmmfast.datasets.sleepstudy()
    subject = np.unique(np.asarray(frame["Subject"]), return_inverse=True)[1]
    days, y = (np.asarray(frame[name], dtype=float) for name in ("Days", "Reaction"))
    return {"y": y, "t": days, "id": subject.astype(np.int64)}


def responses(seed: int) -> dict[str, np.ndarray]:
    """1,000 responses, Y (n, r), on one design with times 0, …, 4."""
    rng = np.random.default_rng(seed)
    id = np.repeat(np.arange(SUBJECTS), ROWS_EACH)
    t = np.tile(np.arange(float(ROWS_EACH)), SUBJECTS)
    b0, b1 = rng.standard_normal((2, SUBJECTS, RESPONSES))
    noise = rng.standard_normal((len(id), RESPONSES))
    Y = 1.0 + 0.5 * t[:, None] + b0[id] + 0.7 * b1[id] * t[:, None] + noise
    return {"Y": Y, "t": t, "id": id}


def segments(seed: int) -> dict[str, np.ndarray]:
    """10,000 segments of 50 clusters of 2 to 8 rows; ids are unique across segments."""
    rng = np.random.default_rng(seed)
    clusters = SEGMENTS * SEGMENT_CLUSTERS
    id = np.repeat(np.arange(clusters), rng.integers(2, 8, clusters, endpoint=True))
    t = rng.uniform(0.0, 3.0, len(id))
    b = rng.standard_normal((2, clusters))
    y = 1.0 + 0.5 * t + b[0, id] + 0.7 * b[1, id] * t + rng.standard_normal(len(id))
    return {"y": y, "t": t, "id": id, "segment": id // SEGMENT_CLUSTERS}


# Routes


def design(data: dict[str, Any]) -> np.ndarray:
    """[1, t], for X and Z alike."""
    return np.column_stack([np.ones(len(data["t"])), data["t"]])


def loop(fits: int, fit: Callable[[int], Any]) -> Fits:
    """One fit after the other."""
    return lambda: np.array([float(fit(k)) for k in range(fits)])


def response(data: dict[str, Any], k: int) -> np.ndarray:
    """Response k of many, or the only one."""
    return np.ascontiguousarray(data["Y"][:, k]) if "Y" in data else data["y"]


def lmmfast_arrays(data: dict[str, Any], fits: int) -> Fits:
    import lmmfast

    X, id = design(data), data["id"]
    return loop(fits, lambda k: lmmfast.fit(response(data, k), X, id, X).llf)


def lmmfast_formula(data: dict[str, Any], fits: int) -> Fits:
    import lmmfast

    frame = lmmfast.datasets.sleepstudy()
    return loop(fits, lambda k: lmmfast.lmm(SLEEPSTUDY, frame).llf)


def lmmfast_many(data: dict[str, Any], fits: int) -> Fits:
    import lmmfast

    X, Y = design(data), np.ascontiguousarray(data["Y"][:, :fits])
    return lambda: np.asarray(lmmfast.fit_many(Y, X, data["id"], X).llf)


def lmmfast_by(data: dict[str, Any], fits: int) -> Fits:
    import lmmfast

    frame = segment_frame(data, fits)
    return lambda: np.asarray(lmmfast.lmm_by(SLOPE, frame, by="segment").llf)


def lmmfast_each(data: dict[str, Any], fits: int) -> Fits:
    import lmmfast

    parts = [part for _, part in segment_frame(data, fits).groupby("segment")]
    return loop(fits, lambda k: lmmfast.lmm(SLOPE, parts[k]).llf)


def segment_frame(data: dict[str, Any], fits: int) -> Any:
    """The first so many segments as a data frame."""
    import pandas as pd

    frame = pd.DataFrame(data)
    return frame[frame["segment"] < fits].reset_index(drop=True)


def glmm_loop(data: dict[str, Any], fits: int) -> Fits:
    import glmm

    parts = columns(data, fits)
    options = {"satterthwaite": False, "wald_se": "rx"}
    return loop(fits, lambda k: glmm.fit(parts(k), SLOPE, reml=True, **options).loglik)


def columns(data: dict[str, Any], fits: int) -> Callable[[int], dict[str, np.ndarray]]:
    """Columns y, t and id of fit k, as a dict."""
    if "segment" not in data:
        return lambda k: {"y": response(data, k), "t": data["t"], "id": data["id"]}
    ends = np.searchsorted(data["segment"], np.arange(fits + 1))
    names = "y", "t", "id"
    parts = [
        {name: data[name][ends[k] : ends[k + 1]].copy() for name in names} for k in range(fits)
    ]
    return lambda k: parts[k]


def mixedlm_loop(data: dict[str, Any], fits: int) -> Fits:
    import mixedlm_rs

    return matrix_loop(mixedlm_rs.MixedLM, data, fits)


def statsmodels_loop(data: dict[str, Any], fits: int) -> Fits:
    import statsmodels.api as sm

    return matrix_loop(sm.MixedLM, data, fits)


def matrix_loop(model: Callable[..., Any], data: dict[str, Any], fits: int) -> Fits:
    """statsmodels' interface, which mixedlm-rs shares."""
    parts = columns(data, fits)

    def fit(k: int) -> float:
        part = parts(k)
        X = design(part)
        return float(model(part["y"], X, part["id"], exog_re=X).fit().llf)

    return loop(fits, fit)


def mixedlm_formula(data: dict[str, Any], fits: int) -> Fits:
    import mixedlm_rs

    import lmmfast

    frame = lmmfast.datasets.sleepstudy()

    def fit(k: int) -> float:
        made = mixedlm_rs.mixedlm("Reaction ~ Days", frame, groups="Subject", re_formula="~Days")
        return float(made.fit().llf)

    return loop(fits, fit)


def lme_python_loop(data: dict[str, Any], fits: int) -> Fits:
    import lme_python
    import polars as pl

    frame = pl.DataFrame({name: data[name] for name in ("y", "t", "id")})
    return loop(fits, lambda k: lme_python.lmer(SLOPE, data=frame, reml=True).log_likelihood)


WORKLOADS: dict[str, Many] = {
    "small": Many(
        f"`{SLEEPSTUDY}`, 180 rows, REML, one fit after the other",
        sleepstudy,
        [
            Route("lmmfast", "fit, arrays", lmmfast_arrays, 200),
            Route("lmmfast", "lmm, formula", lmmfast_formula, 100),
            Route("mixedlm-rs", "arrays", mixedlm_loop, 100),
            Route("mixedlm-rs", "formula", mixedlm_formula, 50),
            Route("glmm", "formula", glmm_loop, 100),
            Route("lme-python", "formula", lme_python_loop, 100),
            Route("lme4", "lmer", None, 50),
            Route("statsmodels", "arrays", statsmodels_loop, 10),
        ],
    ),
    "many-responses": Many(
        f"{RESPONSES:,} responses, {SUBJECTS} subjects × {ROWS_EACH} rows, `{SLOPE}`, REML",
        responses,
        [
            Route("lmmfast", "fit_many", lmmfast_many, RESPONSES),
            Route("lmmfast", "loop of fit, arrays", lmmfast_arrays, RESPONSES),
            Route("glmm", "loop", glmm_loop, RESPONSES),
            Route("mixedlm-rs", "loop, arrays", mixedlm_loop, RESPONSES),
            Route("lme4", "refit", None, RESPONSES),
        ],
    ),
    "many-models": Many(
        f"{SEGMENTS:,} segments of {SEGMENT_CLUSTERS} clusters, `{SLOPE}` in each, REML",
        segments,
        [
            Route("lmmfast", "lmm_by", lmmfast_by, SEGMENTS),
            Route("lmmfast", "loop of lmm", lmmfast_each, SEGMENTS // 20),
            Route("glmm", "loop", glmm_loop, SEGMENTS // 20),
            Route("mixedlm-rs", "loop, arrays", mixedlm_loop, SEGMENTS // 20),
        ],
    ),
}
DEFAULT = ("small", "many-responses", "many-models")

if __name__ == "__main__":
    serve(child)
