"""The main job on real data: antibody titres of infants after a hepatitis B booster."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmmfast.report.text import WIDTH, text_table

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

ORIGIN = 6.5  # log_time = 0, about the middle of the data
FIXED = "log_titer ~ log_time + log_titer_baseline"
MODELS = {
    "intercept": f"{FIXED} + (1 | infant)",
    "slope": f"{FIXED} + (1 + log_time | infant)",
}
PICTURE = "hepatitis.png"

Fits = dict[tuple[str, str], "LMMResult"]


def load() -> pd.DataFrame:
    """Return the hepatitis data with the column ``log_time``, 0 at 665 days."""
    from lmmfast import datasets

    data = datasets.hepatitis()
    return data.assign(log_time=data["log_days"] - ORIGIN)


def fit_all(data: pd.DataFrame) -> Fits:
    """Fit both models by ML and REML; keys are ("intercept" or "slope", method)."""
    from lmmfast.api import lmm

    return {
        (model, method): lmm(formula, data, reml=method == "REML")
        for model, formula in MODELS.items()
        for method in ("ML", "REML")
    }


def report(data: pd.DataFrame, fits: Fits) -> str:
    """Write the report: data, fits, the two answers, the boundary, the choice of the model."""
    infants = data["infant"].nunique()
    parts = [
        _heading("Hepatitis B: antibody titres after a booster"),
        _paragraph(
            f"{infants} infants, {len(data)} titres (mIU/ml), 2 or 3 for each infant; Gilks, Wang, "
            "Yvonnet and Coursaget (1993), Biometrics 49, 441-453. Titres and days are natural "
            f"logarithms; log_time = log_days - {ORIGIN} is 0 at {math.exp(ORIGIN):.0f} days."
        ),
        _heading("Four fits"),
        "\n".join(_comparison(fits)),
        _heading("The model in full"),
        str(fits["intercept", "REML"].summary()),
        _heading("1. How does the titre change after the booster?"),
        _answer_time(fits["intercept", "REML"]),
        _heading("2. How does the titre before the booster affect it?"),
        _answer_baseline(fits["intercept", "REML"]),
        _heading("3. Does the decline differ between infants?"),
        *_answer_slope(fits),
    ]
    return "\n\n".join(parts)


def picture(fit: LMMResult, data: pd.DataFrame, path: Path) -> None:
    """Draw the curves of the infants over the population line, low and high baseline apart.

    Raises
    ------
    PlotError
        matplotlib is not installed.
    """
    from lmmfast.plots import figure, plot_curves

    canvas = figure(10.5, 5.2)
    axes = canvas.subplots(1, 2, sharex=True, sharey=True)
    baseline = data.groupby("infant")["log_titer_baseline"].first()
    middle = float(baseline.median())
    low = data["log_titer_baseline"] <= middle
    for ax, rows, which in zip(axes, (data[low], data[~low]), ("up to", "above"), strict=True):
        plot_curves(fit, rows, "log_time", n_groups=None, ax=ax)
        ax.set_title(
            f"Titre before the booster {which} {_titre(middle)} "
            f"({rows['infant'].nunique()} infants)",
            fontsize=11,
        )
        days = (300, 400, 500, 700, 1000)
        ax.set_xticks([math.log(d) - ORIGIN for d in days], [f"{d:,}" for d in days])
        ax.set_xlabel("days (log scale)")
        ax.set_ylabel("")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="0.92", lw=0.8)
        ax.set_axisbelow(True)
    titres = (1, 10, 100, 1000, 10_000, 100_000)
    axes[0].set_yticks([math.log(t) for t in titres], [f"{t:,}" for t in titres])
    axes[0].set_ylabel("anti-HBs titre in mIU/ml (log scale)")
    axes[0].legend(frameon=False, loc="upper right", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=150)


def run(out: Path) -> Iterator[str]:
    """Do it all; yield the text to print.

    Parameters
    ----------
    out : Path
        Directory for the picture, made if it does not exist.
    """
    from lmmfast.plots import PlotError

    data = load()
    fits = fit_all(data)
    yield report(data, fits)
    path = out / PICTURE
    try:
        picture(fits["intercept", "REML"], data, path)
    except PlotError as error:
        yield f"\n{_paragraph(f'No picture: {error}')}"
    else:
        text = "The infants' curves over the population line (drawn for the median baseline): "
        yield f"\n{_paragraph(text)}\n{path}"


def _comparison(fits: Fits) -> list[str]:
    rows = []
    for (model, method), fit in fits.items():
        slope, baseline = (
            f"{fit.params[name]:.3f} ({fit.bse[name]:.3f})"
            for name in ("log_time", "log_titer_baseline")
        )
        label = "random intercept" + (" and slope" if model == "slope" else "")
        rows.append([label, method, f"{fit.llf:.3f}", f"{fit.aic:.2f}", slope, baseline])
    header = ["Model", "Method", "Log-lik.", "AIC", "log_time (SE)", "baseline (SE)"]
    return text_table(header, rows, n_labels=2)


def _answer_time(fit: LMMResult) -> str:
    slope, low, high = _estimate(fit, "log_time")
    half, half_low, half_high = (2**v for v in (slope, low, high))
    proportional = "lies within" if low < -1 < high else "lies outside"
    return _paragraph(
        f"It falls as a power of time, days^{slope:.2f} (95% interval {low:.2f} to {high:.2f}). "
        f"When the time since the booster doubles, the titre is multiplied by {half:.2f} "
        f"({half_low:.2f} to {half_high:.2f}): it about halves. The simple rule 'titre "
        f"proportional to 1/time', a slope of -1, {proportional} the interval."
    )


def _answer_baseline(fit: LMMResult) -> str:
    slope, low, high = _estimate(fit, "log_titer_baseline")
    twice, twice_low, twice_high = (2**v for v in (slope, low, high))
    between = fit.cov_re.to_numpy().item()
    share = between / (between + fit.scale)
    return _paragraph(
        f"It stays visible throughout: of two infants, the one with twice the titre before the "
        f"booster has {twice:.2f} times ({twice_low:.2f} to {twice_high:.2f}) the titre of the "
        f"other at the same time afterwards. The power is {slope:.2f} ({low:.2f} to {high:.2f}): "
        "more than 0, but less than 1, so the advantage shrinks. (The baseline is itself measured "
        "with error, which pulls this power towards 0.) Infants differ beyond it: of the variance "
        f"that time and baseline leave, {share:.0%} lies between infants."
    )


def _answer_slope(fits: Fits) -> Iterator[str]:
    from lmmfast.inference.comparison import compare

    slope, plain = fits["slope", "REML"], fits["intercept", "REML"]
    sd = slope.varcorr.sd["log_time"]
    yield "\n".join(["Random intercept and slope, REML", *slope.varcorr.lines()])
    yield _paragraph(
        f"The search {slope.certificate.status}. This is no failure: the likelihood is highest at "
        "the edge of the possible covariance matrices (the certificate: it rises in no direction "
        f"that is allowed). It means that the spread of the slopes, SD {sd:.2f} about "
        f"{slope.params['log_time']:.2f}, is too small to be told from the spread of the levels "
        "with 2 or 3 titres an infant."
    )
    test = compare(fits["intercept", "ML"], fits["slope", "ML"], test="mixture").iloc[1]
    yield _paragraph(
        f"Prefer the random intercept alone: AIC {plain.aic:.1f} against {slope.aic:.1f} (REML), "
        f"and the likelihood ratio of the ML fits, {test['chisq']:.2f}, gives p = "
        f"{test['p']:.2f}. A variance of zero lies on the boundary, so p is from the "
        "equal mixture of chi-squared with 1 and 2 degrees of freedom (Stram and Lee 1994, "
        "Biometrics 50, 1171-1177), an approximation. The two answers above hardly depend on this "
        "choice: compare the four fits."
    )


def _estimate(fit: LMMResult, name: str) -> tuple[float, float, float]:
    """Estimate and 95% limits of a fixed effect."""
    limits = fit.conf_int().to_numpy()[fit.x_names.index(name)]
    return float(fit.params[name]), float(limits[0]), float(limits[1])


def _titre(log_titre: float) -> str:
    """Two significant digits are enough for a title."""
    value = math.exp(log_titre)
    return f"{float(np.format_float_positional(value, 2, fractional=False)):,.0f} mIU/ml"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)


def _heading(text: str) -> str:
    return f"{text}\n{'-' * len(text)}"
