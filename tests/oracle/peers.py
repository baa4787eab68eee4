"""Expected numbers of the peers: reading them, translating names, comparing."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

import lmmfast
from lmmfast import datasets

EXPECTED = Path(__file__).parent / "expected"
DATA = Path(__file__).parent / "data"
ENGINES = ("moments", "reference")
METHODS = ("ML", "REML")


@cache
def expected(case):
    """The numbers of ``expected/<case>.json``."""
    return json.loads((EXPECTED / f"{case}.json").read_text(encoding="utf-8"))


@cache
def _pristine(dataset):
    if (DATA / f"{dataset}.csv").exists():
        return pd.read_csv(DATA / f"{dataset}.csv")
    if dataset == "insteval":
        with np.load(DATA / "insteval.npz") as columns:
            data = pd.DataFrame(dict(columns)).astype(np.int64)
        return data.assign(dept=data["dept"].map("D{:02d}".format))
    if dataset in DERIVED:
        source, derive = DERIVED[dataset]
        return derive(_pristine(source).copy())
    data = getattr(datasets, dataset)()
    if dataset == "sleepstudy":  # as in structures.R and residuals.R
        days = data["Days"].to_numpy()
        data["w"] = np.array([1.0, 2.0, 4.0])[days % 3]
        data["o"] = 5.0 * days + days**2 / 4.0
        data["half"] = np.where(days < 5, "early", "late")
    if dataset == "orthodont":
        data["w"] = np.where(data["Sex"] == "Male", 2.0, 1.0) * (data["age"] - 6.0)
        data["occasion"] = (data["age"] - 6) // 2
    return data


def _steps(data, column, group):
    """From one row of a group to the next; the first row of a group has none."""
    step = data.groupby(group, observed=True)[column].diff()
    return data.assign(step=step)[step.notna()]


# The data sets that residuals.R makes of the bundled ones.
DERIVED = {
    "orthodont_gaps": ("orthodont", lambda data: data[np.arange(len(data)) % 7 != 3]),
    "orthodont_steps": ("orthodont", lambda data: _steps(data, "distance", "Subject")),
    "ovary_gaps": (
        "ovary",
        lambda data: data[(data["Index"] + 2 * (data["Mare"].cat.codes + 1)) % 5 != 0],
    ),
    "ovary_steps": (
        "ovary",
        lambda data: _steps(data, "follicles", "Mare")[
            lambda rows: ~((rows["Index"] + 2 * (rows["Mare"].cat.codes + 1)) % 5).isin([0, 3])
        ],
    ),
}


def load(dataset):
    """A fresh frame of a data set, with the extra columns that the cases use."""
    return _pristine(dataset).copy()


def residual_from(text):
    """The residual structure that ``text`` spells: ``"AR1('Days') * ByGroup('half')"``."""
    public = {name: getattr(lmmfast, name) for name in lmmfast.__all__}
    return eval(text, {"__builtins__": {}}, public)


def formulaic_name(name, columns):
    """Formulaic's name of a coefficient from R's (treatment coding).

    ``columns`` maps a column to its description, ``{"type": "factor", "levels": [...]}``.
    ``(Intercept)`` -> ``Intercept``, ``age:SexMale`` -> ``age:Sex[T.Male]``.
    """
    if name == "(Intercept)":
        return "Intercept"
    return ":".join(_formulaic_piece(piece, columns) for piece in name.split(":"))


def _formulaic_piece(piece, columns):
    for column, about in columns.items():
        if about["type"] == "factor" and piece.startswith(column):
            level = piece.removeprefix(column)
            if level in (about.get("levels") or ()):
                return f"{column}[T.{level}]"
    return piece


def assert_close(actual, wanted, tol, scale=None):
    """Assert ``|actual - wanted| <= tol * scale`` elementwise (``scale``: ``|wanted|``).

    A number near zero (a covariance, the effect of nothing) carries no relative precision of its
    own: its scale is then that of its sampling or random variation, as the callers say.
    """
    actual, wanted = np.asarray(actual, dtype=float), np.asarray(wanted, dtype=float)
    assert actual.shape == wanted.shape
    scale = np.abs(wanted) if scale is None else scale
    error = np.max(np.abs(actual - wanted) / scale)
    assert error <= tol, f"relative error {error:.2e} > {tol:.0e}: {actual} instead of {wanted}"


def scale_of_cov(cov, floor=0.0):
    """``sqrt(c_jj c_kk)``, the scale of entry (j, k) of a covariance matrix; variances >= floor."""
    cov = np.asarray(cov, dtype=float)
    sd = np.sqrt(np.maximum(np.diagonal(cov, axis1=-2, axis2=-1), floor))
    return sd[..., :, None] * sd[..., None, :]


def assert_fixed_effects(fit, want, columns):
    """Estimates, standard errors and covariances of the fixed effects, matched by name."""
    names = [formulaic_name(name, columns) for name in want["beta_names"]]
    se = np.array([want["se_beta"][name] for name in want["beta_names"]])
    beta = np.array([want["beta"][name] for name in want["beta_names"]])
    assert sorted(fit.params.index) == sorted(names)
    # An effect near zero is known relative to its standard error.
    assert_close(fit.params[names], beta, 1e-6, np.maximum(np.abs(beta), se))
    assert_close(fit.bse[names], se, 1e-6)
    assert_close(fit.cov_params().loc[names, names], want["vcov_beta"], 1e-6, np.outer(se, se))


def by_group(fit, value):
    """``value`` for each grouping factor: results of models with one have no keys."""
    if isinstance(value, dict):
        return value
    (group,) = {term.group for term in fit.varcorr.terms}
    return {group: value}


def assert_variance_components(fit, D, sigma2):
    """D relative to its standard deviations, so that a correlation near zero is judged fairly.

    ``D`` is a matrix, or one for each grouping factor; a variance of zero is compared with the
    residual one.
    """
    for group, wanted in by_group(fit, D).items():
        scale = scale_of_cov(wanted, floor=1e-4 * sigma2 if isinstance(D, dict) else 0.0)
        assert_close(fit.varcorr[group].cov, wanted, 1e-6, scale)
    assert_close(fit.scale, sigma2, 1e-6)
    assert_close(fit.sigma, np.sqrt(sigma2), 1e-6)


def assert_random_effects(fit, levels, blup, cond_var, D, sigma2, group=None):
    """BLUPs relative to the SD of the effect, conditional covariances relative to their own SDs.

    A variance of zero leaves no scale: a hundredth of the residual SD stands in. ``group`` is
    needed where there are several.
    """
    floor = 1e-4 * sigma2
    effects, cov = fit.random_effects, fit.random_effects_cov
    if group is not None:
        effects, cov = by_group(fit, effects)[group], by_group(fit, cov)[group]
    labels = [str(level) for level in effects.index]
    rows = [labels.index(level) for level in levels]
    sd = np.sqrt(np.maximum(np.diagonal(D), floor))
    assert_close(effects.to_numpy()[rows], blup, 1e-6, sd)
    scale = scale_of_cov(cond_var, floor=floor if np.max(D) == 0 else 0.0)
    assert_close(np.asarray(cov)[rows], cond_var, 1e-6, scale)


def plain_words(fit):
    """What the certificate of a fit says, in lower case."""
    return str(fit.certificate).lower()
