"""Pictures of residuals, quantiles, influence and marginal means: what is drawn is what is said."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from dense_cases import crossed, marginal, nested, serial
from scipy.stats import norm

import lmmfast as lf
from lmmfast.plots.axes import LINE, SUBJECT, figure
from lmmfast.plots.influence import MOST_DRAWN
from lmmfast.plots.quantiles import MOST_POINTS
from lmmfast.plots.residuals import MOST_POINTS as MOST_RESIDUALS

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture
def ax():
    return figure().subplots()


@pytest.fixture(scope="module")
def sleep():
    return lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())


@pytest.fixture(scope="module")
def many():
    m = 4000
    rng = np.random.default_rng(3)
    g, t = np.repeat(np.arange(m), 2), np.tile([0.0, 1.0], m)
    y = rng.normal(size=m)[g] + t + rng.normal(size=2 * m)
    return lf.lmm("y ~ t + (1 | g)", {"y": y, "t": t, "g": g})


def points(ax, color=SUBJECT):
    return next(
        line
        for line in ax.get_lines()
        if line.get_color() == color and line.get_linestyle() == "None"
    )


def test_residuals(sleep, ax):
    assert sleep.plot_residuals(ax=ax) is ax
    x, y = points(ax).get_data()
    order = np.argsort(sleep.fittedvalues.to_numpy(), kind="stable")
    np.testing.assert_array_equal(x, sleep.fittedvalues.to_numpy()[order])
    np.testing.assert_array_equal(y, sleep.residuals("studentized").to_numpy()[order])
    (means,) = [line for line in ax.get_lines() if line.get_color() == LINE]
    sizes = [len(part) for part in np.array_split(order, len(means.get_xdata()))]
    assert np.average(means.get_ydata(), weights=sizes) == pytest.approx(y.mean(), abs=1e-12)
    assert ax.get_ylabel() == "studentized residual"
    assert ax.get_xlabel() == "fitted value, conditional"
    other = sleep.plot_residuals(kind="normalized", title="", color="k", figsize=(5, 2))
    assert other.get_xlabel() == "fitted value, population"
    assert (other.get_title(), *other.figure.get_size_inches()) == ("", 5, 2)
    np.testing.assert_allclose(
        sorted(points(other, "k").get_ydata()), sorted(sleep.residuals("normalized"))
    )


def test_quantiles_of_residuals(sleep, ax):
    sleep.plot_qq(ax=ax)
    x, y = points(ax).get_data()
    n = sleep.nobs
    np.testing.assert_allclose(y, np.sort(sleep.residuals("studentized")))
    np.testing.assert_allclose(x, norm.ppf((np.arange(n) + 0.5) / n))
    (band,) = ax.collections
    vertices = band.get_paths()[0].vertices
    middle = vertices[np.isclose(vertices[:, 0], x[n // 2])]
    # The middle order statistic has a standard error of about 1.25 / sqrt(n).
    assert np.ptp(middle[:, 1]) == pytest.approx(2 * 1.96 * 1.2533 / np.sqrt(n), rel=0.05)
    response = sleep.plot_qq(kind="response", level="population")
    drawn = points(response).get_ydata()
    assert np.mean(drawn**2) == pytest.approx(1)
    assert response.get_ylabel() == "standardised residuals, population"


def test_quantiles_of_random_effects(sleep):
    axes = sleep.plot_qq_effects()
    assert [ax.get_title() for ax in axes] == ["Intercept by Subject", "Days by Subject"]
    for k, ax in enumerate(axes):
        spread = sleep.cov_re.iloc[k, k] - sleep.random_effects_cov[:, k, k]
        wanted = np.sort(sleep.random_effects.iloc[:, k] / np.sqrt(spread))
        np.testing.assert_allclose(points(ax).get_ydata(), wanted)
    several = nested()[0].plot_qq_effects()
    assert [ax.get_title() for ax in several] == ["Intercept by batch", "Intercept by batch:cask"]
    one = figure().subplots()
    (same,) = nested()[0].plot_qq_effects("batch:cask", ax=one, title="casks")
    assert same is one and one.get_title() == "casks"
    with pytest.raises(ValueError, match="factor='cask': choose one of 'batch', 'batch:cask'"):
        nested()[0].plot_qq_effects("cask")
    with pytest.raises(ValueError, match="effect='days': choose one of 'Intercept', 'Days'"):
        sleep.plot_qq_effects(effect="days")
    with pytest.raises(ValueError, match="there are 2 effects to draw, and 1 axes"):
        sleep.plot_qq_effects(ax=one)
    flat = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff2())
    for fit in (flat, marginal()[0]):
        with pytest.raises(lf.UnsupportedModelError, match="to draw"):
            fit.plot_qq_effects()


def test_standardised_predictions_have_unit_variance(many, ax):
    """Under the model, nearly: beta's uncertainty apart."""
    many.plot_qq_effects(ax=ax)
    frame, spread = many.random_effects, many.cov_re.iloc[0, 0] - many.random_effects_cov[:, 0, 0]
    z = frame.iloc[:, 0] / np.sqrt(spread)
    assert z.std() == pytest.approx(1, abs=0.05)
    assert len(points(ax).get_xdata()) == MOST_POINTS < 4000


def test_of_many_rows_some_are_drawn(many, ax):
    many.plot_residuals(ax=ax)
    assert len(points(ax).get_xdata()) == MOST_RESIDUALS
    assert ax.get_title() == "Residuals and fitted values, 5,000 of 8,000 rows"
    qq = many.plot_qq()
    drawn, every = points(qq).get_ydata(), np.sort(many.residuals("studentized"))
    assert len(drawn) == MOST_POINTS
    np.testing.assert_allclose([drawn[0], drawn[-1]], [every[0], every[-1]])
    rows = many.plot_influence(by="row")
    assert len(points(rows).get_xdata()) == MOST_DRAWN
    assert rows.get_xlabel() == "row, the 5,000 most influential of 8,000"


def test_influence(sleep, ax):
    table = sleep.influence()
    sleep.plot_influence(influence=table, n_labels=2, ax=ax)
    np.testing.assert_allclose(points(ax).get_ydata(), table["cooks_d"])
    assert [text.get_text() for text in ax.texts] == list(table["cooks_d"].nlargest(2).index)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Subject", "Cook's distance")
    ratio = sleep.plot_influence("covratio", influence=table, n_labels=1)
    assert ratio.texts[0].get_text() == abs(table["covratio"] - 1).idxmax()
    changes = sleep.plot_influence("dfb_Days", influence=table, color="k")
    assert changes.get_ylabel() == "dfb_Days"
    with pytest.raises(lf.DataError, match="measure='cook': choose one of 'rows', 'leverage'"):
        sleep.plot_influence("cook", influence=table)


@pytest.mark.parametrize("make", [nested, crossed, marginal, serial])
def test_overview_of_all_kinds_of_fits(make):
    fit = make()[0]
    axes = fit.plot(figsize=(8, 6))
    assert axes.shape == (2, 2)
    assert all(ax.has_data() for ax in axes.flat)
    titles = [ax.get_title() for ax in axes.flat]
    assert titles[:2] == ["Residuals and fitted values", "Normal quantiles of residuals"]
    assert titles[2] == (
        f"Intercept by {fit.terms[0].group}" if fit.terms else "Normal quantiles of residuals"
    )
    name = "row" if make is crossed else next(iter(fit.influence(refit=0).index.names))
    assert titles[3] == f"Influence of each {name}"
    assert axes[0, 0].figure.get_suptitle().startswith(fit.y_name + ": ")


def test_overview_on_the_boundary():
    flat = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff2())
    assert flat.plot(title="flat")[1, 0].get_ylabel() == "normalized residuals, population"


def test_overview_of_rows_too_many_for_their_covariance(monkeypatch):
    from lmmfast.diagnostics import blocks, inverse_rows

    monkeypatch.setattr(blocks, "MAX_BLOCK", 3)
    monkeypatch.setattr(inverse_rows, "MAX_EFFECTS", 0)
    axes = crossed()[0].plot()
    assert axes[0, 0].get_ylabel() == "Pearson residual"
    assert axes[1, 0].get_title() == "Intercept by plate"
    assert axes[1, 1].texts[0].get_text().startswith("too many rows hang together")


def test_without_rows(sleep):
    bare = sleep.remove_data()
    for draw in (bare.plot, bare.plot_residuals, bare.plot_qq, bare.plot_influence):
        with pytest.raises(lf.DataError, match="need the data"):
            draw()


# -- marginal means ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orthodont():
    return lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())


def test_means(orthodont, ax):
    means = orthodont.emmeans("Sex")
    assert means.plot(ax=ax) is ax
    frame = means.frame
    np.testing.assert_allclose(points(ax).get_ydata(), frame["estimate"])
    (ends,) = ax.collections
    np.testing.assert_allclose(
        [segment[:, 1] for segment in ends.get_segments()], frame[["conf_low", "conf_high"]]
    )
    assert [label.get_text() for label in ax.get_xticklabels()] == ["Female", "Male"]
    assert (ax.get_title(), ax.get_ylabel()) == ("95% intervals", "estimate")


def test_means_by_a_covariate(orthodont, ax):
    means = orthodont.emmeans("Sex", by="age", at={"age": [8, 11, 14]})
    means.plot(ax=ax)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["Female", "Male"]
    girls, boys = points(ax), points(ax, LINE)
    frame = means.frame.set_index(["Sex", "age"])["estimate"]
    np.testing.assert_allclose(girls.get_ydata(), frame["Female"])
    np.testing.assert_allclose(boys.get_ydata(), frame["Male"])
    np.testing.assert_allclose(girls.get_xdata(), [8, 11, 14], atol=0.2)
    assert (boys.get_xdata() > girls.get_xdata()).all()
    assert ax.get_xlabel() == "age"


def test_contrasts(orthodont):
    pairs = orthodont.emmeans("age", by="Sex", at={"age": [8, 11, 14]}).pairs()
    ax = pairs.plot(color="k", title="Pairs")
    np.testing.assert_allclose(points(ax, "k").get_xdata(), pairs.frame["estimate"])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == f"{pairs.frame['contrast'][0]}, Female"
    assert len(labels) == 6 and ax.get_title() == "Pairs"
    assert ax.yaxis_inverted()


def test_means_that_are_not_estimable_are_left_out(ax):
    data = pd.DataFrame({"a": [*"xxyyz"] * 8, "b": [*"pqpqp"] * 8, "g": np.repeat(range(8), 5)})
    data["y"] = np.random.default_rng(1).normal(size=40)
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm("y ~ a * b + (1 | g)", data)
    means = fit.emmeans(["a", "b"])
    means.plot(ax=ax)
    drawn = np.asarray(points(ax).get_ydata(), float)
    assert np.isnan(drawn).sum() == 1 == np.isnan(means.frame["estimate"]).sum()
    alone = fit.emmeans("b", at={"a": ["z"]})
    only = type(alone)(fit, alone.labels.iloc[1:].reset_index(drop=True), alone.L[1:], [])
    with pytest.raises(lf.DataError, match="none of the means is estimable"):
        only.plot()
