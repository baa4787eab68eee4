"""Pictures of models with several grouping factors: what is drawn is what the model says."""

import matplotlib
import numpy as np
import pytest

import lmmfast as lf
from lmmfast.plots.axes import LINE, OBSERVED, SUBJECT, figure
from lmmfast.plots.effects import MOST_DRAWN, NAMED_UP_TO

matplotlib.use("Agg")


@pytest.fixture
def ax():
    return figure().subplots()


@pytest.fixture(scope="module")
def data():
    return lf.datasets.multicentre()


@pytest.fixture(scope="module")
def trial(data):
    return lf.lmm("sbp ~ arm * month + (1 | center) + (1 + month | center:patient)", data)


@pytest.fixture(scope="module")
def penicillin():
    return lf.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", lf.datasets.penicillin())


def points(ax):
    (line,) = [line for line in ax.get_lines() if line.get_color() == SUBJECT]
    return line.get_xdata()


def curves(ax):
    return [line for line in ax.get_lines() if line.get_color() not in (LINE, OBSERVED)]


# -- random effects ------------------------------------------------------------------------------


def test_a_panel_for_each_effect_of_each_factor(trial):
    axes = trial.plot_random_effects()
    titles = ["Intercept by center", "Intercept by center:patient", "month by center:patient"]
    assert [ax.get_title() for ax in axes] == titles
    centers = trial.random_effects["center"]["Intercept"].sort_values()
    np.testing.assert_array_equal(points(axes[0]), centers)
    assert [text.get_text() for text in axes[0].get_yticklabels()] == centers.index.to_list()
    slopes = trial.random_effects["center:patient"]["month"].sort_values()
    np.testing.assert_array_equal(points(axes[2]), slopes)
    assert axes[2].get_ylabel() == "589 levels of center:patient"
    assert not axes[2].get_yticklabels()
    matplotlib.pyplot.close("all")


def test_intervals_are_of_the_conditional_variances(trial, ax):
    (drawn,) = trial.plot_random_effects("center:patient", "month", ax=ax, alpha=0.1)
    assert drawn is ax
    (intervals,) = ax.collections
    ends = np.array([segment[:, 0] for segment in intervals.get_segments()])
    sd = np.sqrt(trial.random_effects_cov["center:patient"][:, 1, 1])
    b = trial.random_effects["center:patient"]["month"].to_numpy()
    order = np.argsort(b, kind="stable")
    np.testing.assert_allclose(ends.mean(axis=1), b[order], atol=1e-12)
    np.testing.assert_allclose(np.ptp(ends, axis=1) / 2, 1.6448536 * sd[order], rtol=1e-7)


def test_one_factor(ax):
    fit = lf.lmm("Reaction ~ Days + (1 | Subject)", lf.datasets.sleepstudy())
    fit.plot_random_effects(ax=ax)
    np.testing.assert_array_equal(points(ax), np.sort(fit.random_effects["Intercept"]))


def test_boundary_effects_are_points_at_zero(ax):
    fit = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff2())
    fit.plot_random_effects(ax=ax)
    np.testing.assert_array_equal(points(ax), np.zeros(6))


def test_very_many_levels(ax):
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(MOST_DRAWN + 1000), 2)
    y = rng.normal(size=len(group)) + rng.normal(size=6000)[group]
    fit = lf.fit(y, np.ones((len(y), 1)), group)
    fit.plot_random_effects(ax=ax)
    drawn, b = points(ax), np.sort(fit.random_effects["Intercept"])
    assert (len(drawn), drawn[0], drawn[-1]) == (MOST_DRAWN, b[0], b[-1])
    assert ax.get_ylabel() == "5,000 of 6,000 levels of group"


def test_labels_on_request(trial):
    (axes,) = trial.plot_random_effects("center:patient", "month", labels=True)
    assert len(axes.get_yticklabels()) == 589 > NAMED_UP_TO
    matplotlib.pyplot.close("all")


def test_what_there_is_to_choose_from(trial, ax):
    with pytest.raises(ValueError, match="choose one of 'center', 'center:patient'"):
        trial.plot_random_effects("patient")
    with pytest.raises(ValueError, match="choose one of 'Intercept'"):
        trial.plot_random_effects("center", "month")
    with pytest.raises(ValueError, match="3 effects to draw, and 1 axes"):
        trial.plot_random_effects(ax=ax)
    fit = lf.lmm(
        "distance ~ age", lf.datasets.orthodont(), groups="Subject", residual=lf.CompoundSymmetry()
    )
    with pytest.raises(lf.UnsupportedModelError, match="no random effects"):
        fit.plot_random_effects()


# -- variance partition --------------------------------------------------------------------------


def test_bars_are_the_shares(trial, ax):
    assert trial.plot_variance_partition(ax=ax) is ax
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, 100 * trial.variance_partition()["share"])
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["center", "center:patient", "Residual"]
    assert ax.yaxis_inverted()


# -- curves --------------------------------------------------------------------------------------


def test_patients_by_default_coloured_by_center(trial, data, ax):
    some = ["C01:1", "C01:2", "C02:1"]
    trial.plot_curves(data, "month", groups=some, ax=ax)
    drawn = curves(ax)
    assert len(drawn) == 3
    assert drawn[0].get_color() == drawn[1].get_color() != drawn[2].get_color()
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["observed", "center C01", "center C02", "population, 95% band"]
    for line, (center, patient) in zip(drawn, [("C01", 1), ("C01", 2), ("C02", 1)], strict=True):
        rows = data[(data["center"] == center) & (data["patient"] == patient)]
        expected = trial.predict(rows, level="conditional").to_numpy()
        np.testing.assert_allclose(
            np.interp(rows["month"], line.get_xdata(), line.get_ydata()), expected, rtol=1e-12
        )


def test_a_curve_for_each_center(trial, data, ax):
    trial.plot_curves(data, "month", level="center", at={"arm": "placebo"}, ax=ax)
    drawn = curves(ax)
    b, beta = trial.random_effects["center"]["Intercept"], trial.params
    assert len(drawn) == 24
    for line, effect in zip(drawn, b, strict=True):
        expected = beta["Intercept"] + effect + beta["month"] * line.get_xdata()
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
    assert "fitted, one line per center" in ax.get_legend_handles_labels()[1]


def test_many_centers_have_no_legend_entries(trial, data, ax):
    trial.plot_curves(data, "month", ax=ax, n_groups=100)
    drawn = curves(ax)
    assert len(drawn) == 100
    labels = ax.get_legend_handles_labels()[1]
    assert labels[1] == "fitted, one line per center:patient, colours by center"


def test_crossed_factors_leave_each_other_out(ax):
    rng = np.random.default_rng(3)
    a, b, x = np.repeat(np.arange(12), 10), np.tile(np.arange(5), 24), rng.uniform(size=120)
    data = {"a": np.array(list("abdefhikmnpr"))[a], "b": np.array(list("kmprt"))[b], "x": x}
    data["y"] = 5 * rng.normal(size=12)[a] + 9 * rng.normal(size=5)[b] + x + rng.normal(size=120)
    fit = lf.lmm("y ~ x + (1 | a) + (1 | b)", data)
    fit.plot_curves(data, "x", ax=ax)
    drawn = curves(ax)
    assert len(drawn) == 12
    for line, effect in zip(drawn, fit.random_effects["a"]["Intercept"], strict=True):
        expected = fit.params["Intercept"] + effect + fit.params["x"] * line.get_xdata()
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-10)


def test_unknown_levels(trial, data):
    with pytest.raises(ValueError, match="choose one of 'center', 'center:patient', 'conditional'"):
        trial.plot_curves(data, "month", level="population")
    with pytest.raises(lf.DataError, match="no group 'C99' of 'center'"):
        trial.plot_curves(data, "month", level="center", groups=["C99"])
