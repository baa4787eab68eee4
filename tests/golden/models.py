"""Fits whose files are kept: a few models on small data, each with rows to predict."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

import lmmfast as lf


def data() -> pd.DataFrame:
    """Eight visits of 24 patients in 3 sites; numbers with few digits, the same for ever."""
    rng = np.random.default_rng(20261126)
    patient = np.repeat(np.arange(24), 8)
    frame = pd.DataFrame(
        {
            "t": np.tile(np.arange(8.0), 24),
            "x": np.round(rng.normal(size=192), 3),
            "arm": np.asarray(["placebo", "drug", "dose:high"], dtype=object)[patient % 3],
            "site": np.asarray(["nörd", "süd", "west"], dtype=object)[patient // 8],
            "patient": patient * 11 - 30,
            "rater": rng.integers(0, 6, 192),
            "w": np.round(rng.uniform(0.5, 2, 192), 2),
        }
    )
    effects = rng.normal(size=(24, 2)) * [2, 0.4]
    y = 3 + 0.5 * frame["t"] + effects[patient, 0] + effects[patient, 1] * frame["t"]
    y += rng.normal(size=6)[frame["rater"]] + rng.normal(size=3)[patient // 8]
    frame["y"] = np.round(y + rng.normal(size=192), 3)
    frame["y2"] = np.round(frame["y"] + rng.normal(size=192), 3)
    return frame


def models() -> dict[str, object]:
    """Fits by the name of their file."""
    d = data()
    X = d[["t", "x"]].assign(one=1.0)[["one", "t", "x"]].to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "intercept_slope": lf.lmm("y ~ t * arm + (t | patient)", d, weights="w"),
            "functions": lf.lmm(
                "y ~ bs(x, df=4) + log1p(t) + C(rater, contr.sum) + scale(t) + (1 | patient)", d
            ),
            "nested": lf.lmm("y ~ t + arm + (1 | site/patient)", d),
            "crossed": lf.lmm("y ~ t + (1 + t || patient) + (1 | rater)", d, reml=False),
            "ou": lf.lmm("y ~ t + (1 | patient)", d, residual=lf.OU("t")),
            "unstructured": lf.lmm(
                "y ~ t",
                d,
                residual=lf.Unstructured("t"),
                groups="patient",
                ddf="kenward-roger",
                subset="t < 3",
            ),
            "arrays": lf.fit(d["y"].to_numpy(), X, d["patient"].to_numpy(), Z=X[:, :2]),
            "robust": lf.lmm("y ~ t + (1 | patient)", d, vcov="CR2"),
            "many": lf.fit_many(d[["y", "y2"]], X, d["patient"], Z=X[:, :2]),
            "segments": lf.lmm_by("y ~ t + (1 | patient)", d, by="site"),
        }


def facts(name: str, fit: object) -> dict[str, object]:
    """Numbers of a fit that a file of it must give, to the last bit."""
    d = data()
    if isinstance(fit, lf.ManyFits | lf.LMMByResult):
        table = fit.tidy()
        return {
            "tidy": {key: [_plain(v) for v in column] for key, column in table.items()},
            "llf": [_plain(v) for v in np.asarray(fit.llf)],
            "repr": repr(fit),
        }
    assert isinstance(fit, lf.LMMResult)
    numbers: dict[str, object] = {
        "llf": fit.llf,
        "params": fit.params.to_dict(),
        "theta": fit.theta.to_dict(),
        "summary": str(fit.summary()),
        "status": fit.certificate.status,
    }
    if name == "arrays":
        X = d[["t", "x"]].assign(one=1.0)[["one", "t", "x"]].to_numpy()
        groups = d["patient"].to_numpy()
        found = fit.predict(X, level="conditional", groups=groups, Z=X[:, :2])
    else:
        found = np.asarray(fit.predict(d, level="conditional"))
    numbers["predictions"] = [_plain(v) for v in found[::13]]
    return numbers


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
