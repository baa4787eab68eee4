"""Fits of all kinds of models to small data, and their dense matrices."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from dense_model import dense

import lmmfast as lf


def one(n):
    return np.ones((n, 1))


def columns(data, *names):
    return np.column_stack([np.ones(len(data)), *(data[name] for name in names)])


def unbalanced():
    """Sleepstudy less a third of the rows in no order, with weights."""
    data = lf.datasets.sleepstudy()
    data = data[np.arange(len(data)) % 7 % 3 != 1].sample(frac=1, random_state=3)
    return data.assign(w=1.0 + np.arange(len(data)) % 4)


@cache
def slopes(reml=True):
    data = unbalanced()
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data, weights="w", reml=reml)
    X = columns(data, "Days")
    return fit, data, dense(fit, data, data["Reaction"], X, [(data["Subject"], X)], data["w"])


def by_ml():
    return slopes(False)


@cache
def nested():
    data = lf.datasets.pastes()
    fit = lf.lmm("strength ~ 1 + (1 | batch/cask)", data)
    n = len(data)
    cask = data["batch"].astype(str) + data["cask"].astype(str)
    batch = data["batch"].astype(str)
    return fit, data, dense(fit, data, data["strength"], one(n), [(batch, one(n)), (cask, one(n))])


@cache
def crossed():
    data = lf.datasets.penicillin().iloc[::2].reset_index(drop=True)
    fit = lf.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
    effects = [(data[name].astype(str), one(len(data))) for name in ("plate", "sample")]
    return fit, data, dense(fit, data, data["diameter"], one(len(data)), effects)


def autocorrelation(fit, labels, t):
    labels, t = np.asarray(labels), np.asarray(t, float)
    (rho,) = (fit.theta[name] for name in fit.theta_names if name.startswith("rho"))
    same = labels[:, None] == labels
    return np.where(same, rho ** np.abs(t[:, None] - t), 0.0)


@cache
def marginal():
    """Residuals with AR(1) correlation, no random effects, rows in no order."""
    data = lf.datasets.orthodont().sample(frac=0.8, random_state=1)
    data = data.assign(visit=(data["age"] - 8) / 2, boy=data["Sex"] == "Male")
    fit = lf.lmm("distance ~ age + boy", data, groups="Subject", residual=lf.AR1("visit"))
    labels = data["Subject"].astype(str)
    X = columns(data, "age", "boy")
    C = autocorrelation(fit, labels, data["visit"])
    return fit, data, dense(fit, data, data["distance"], X, [], correlation=C)


def trial():
    rng = np.random.default_rng(4)
    n = 240
    data = pd.DataFrame({"t": np.tile(np.arange(4.0), n // 4), "id": np.repeat(np.arange(60), 4)})
    data["center"] = data["id"] // 5
    data["w"] = rng.integers(1, 4, n).astype(float)
    e = rng.normal(size=n)
    for k in range(1, n):
        if data["t"][k]:
            e[k] = 0.6 * e[k - 1] + 0.8 * e[k]
    data["y"] = (
        2 + 0.5 * data["t"] + rng.normal(size=12)[data["center"]] + rng.normal(size=60)[data["id"]]
    ) + 0.7 * e / np.sqrt(data["w"])
    return data[np.arange(n) % 9 != 5].reset_index(drop=True)


@cache
def serial():
    """A random intercept, AR(1) residuals, weights."""
    data = trial()
    fit = lf.lmm("y ~ t + (1 | id)", data, residual=lf.AR1("t"), weights="w")
    n = len(data)
    C = autocorrelation(fit, data["id"], data["t"])
    X = columns(data, "t")
    return fit, data, dense(fit, data, data["y"], X, [(data["id"], one(n))], data["w"], C)


@cache
def nested_serial():
    """Two nested factors, AR(1) residuals within the inner one."""
    data = trial()
    fit = lf.lmm("y ~ t + (1 | center) + (1 | id)", data, residual=lf.AR1("t"), weights="w")
    n = len(data)
    C = autocorrelation(fit, data["id"], data["t"])
    effects = [(data["center"], one(n)), (data["id"], one(n))]
    X = columns(data, "t")
    return fit, data, dense(fit, data, data["y"], X, effects, data["w"], C)


@cache
def process():
    """A process measured with error, the rows in no order."""
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"t": np.tile(np.arange(8.0), 30), "id": np.repeat(np.arange(30), 8)})
    K = 2.0 * 0.7 ** np.abs(np.subtract.outer(range(8), range(8)))
    u = rng.multivariate_normal(np.zeros(8), K, 30).ravel()
    data["y"] = 1 + 0.3 * data["t"] + u + rng.normal(size=240)
    data = data.sample(frac=0.7, random_state=2)
    fit = lf.lmm("y ~ t", data, groups="id", residual=lf.OU("t", nugget=True))
    n, ratio = len(data), fit.theta["var(OU|t)"] / fit.scale
    C = np.eye(n) + ratio * autocorrelation(fit, data["id"], data["t"])
    return fit, data, dense(fit, data, data["y"], columns(data, "t"), [], None, C, errors=True)


CASES = {
    "slopes": slopes,
    "slopes by ML": by_ml,
    "nested": nested,
    "crossed": crossed,
    "marginal": marginal,
    "serial": serial,
    "nested serial": nested_serial,
    "process": process,
}
