"""Pictures of curves: what is drawn is what the model says."""

import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.plots.axes import LINE, OBSERVED, SUBJECT, PlotError, figure
from lmmfast.plots.curves import plot_curves, population_line

matplotlib.use("Agg")


@pytest.fixture
def ax():
    return figure().subplots()


@pytest.fixture(scope="module")
def sleep():
    return lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())


@pytest.fixture(scope="module")
def orthodont():
    return lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())


def lines(ax, color):
    return [line for line in ax.get_lines() if line.get_color() == color]


def test_lines_and_points(sleep, ax):
    data = lf.datasets.sleepstudy()
    assert plot_curves(sleep, data, "Days", ax=ax) is ax
    (population,) = lines(ax, LINE)
    x, y = population.get_data()
    assert (x[0], x[-1]) == (0, 9)
    assert y == pytest.approx(sleep.params["Intercept"] + sleep.params["Days"] * x)
    subjects = lines(ax, SUBJECT)
    assert len(subjects) == 18
    total = sleep.params + sleep.random_effects  # a row per subject, in order
    for line, (_, (intercept, slope)) in zip(subjects, total.iterrows(), strict=True):
        assert line.get_ydata() == pytest.approx(intercept + slope * line.get_xdata())
    (observed,) = lines(ax, OBSERVED)
    assert observed.get_ydata() == pytest.approx(data["Reaction"].to_numpy())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Days", "Reaction")
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["observed", "fitted, one line per Subject", "population, 95% band"]


def test_band(sleep, ax):
    plot_curves(sleep, lf.datasets.sleepstudy(), "Days", ax=ax, alpha=0.1)
    (band,) = ax.collections
    at_zero = [y for x, y in band.get_paths()[0].vertices if x == 0]
    low, high = sleep.conf_int(0.1).loc["Intercept"]  # the population line at x = 0
    assert (min(at_zero), max(at_zero)) == pytest.approx((low, high))
    assert "90% band" in ax.get_legend_handles_labels()[1][-1]


def test_population_line_has_the_standard_error_of_the_mean(orthodont):
    new = pd.DataFrame({"age": [8.0, 11.5], "Sex": ["Female", "Male"]})
    value, low, high = population_line(orthodont, new)
    X = np.array([[1, 0, 8, 0], [1, 1, 11.5, 11.5]])[:, [0, 2, 1, 3]]
    names = ["Intercept", "age", "Sex[T.Male]", "age:Sex[T.Male]"]
    error = np.sqrt(np.diag(X @ orthodont.cov_params().loc[names, names] @ X.T))
    assert value == pytest.approx(X @ orthodont.params[names])
    assert (high - low) / 2 == pytest.approx(2.059539 * error)  # t with 25 degrees of freedom


def test_other_columns_are_held(orthodont, ax):
    """By default the most frequent level, Male; ``at`` chooses another."""
    data = lf.datasets.orthodont()
    plot_curves(orthodont, data, "age", ax=ax, n_groups=0)
    plot_curves(orthodont, data, "age", ax=ax, n_groups=0, at={"Sex": "Female"})
    male, female = lines(ax, LINE)
    for line, sex in ((male, "Male"), (female, "Female")):
        new = pd.DataFrame({"age": line.get_xdata(), "Sex": sex})
        assert line.get_ydata() == pytest.approx(orthodont.predict(new).to_numpy())
    assert lines(ax, SUBJECT) == []


def test_medians(ax):
    data = lf.datasets.hepatitis()
    fit = lf.lmm("log_titer ~ log_days + log_titer_baseline + (1 | infant)", data)
    plot_curves(fit, data, "log_days", ax=ax, n_groups=4)
    (line,) = lines(ax, LINE)
    new = {"log_days": [line.get_xdata()[0]], "log_titer_baseline": [7.016610]}
    assert line.get_ydata()[0] == pytest.approx(np.asarray(fit.predict(new))[0], abs=1e-5)
    # A subject's curve has its own baseline and ends where its observations end.
    curve, rows = lines(ax, SUBJECT)[0], data[data["infant"] == 1]
    assert curve.get_xdata()[[0, -1]] == pytest.approx(rows["log_days"].to_numpy())
    expected = fit.predict(rows, level="conditional").to_numpy()
    assert curve.get_ydata()[[0, -1]] == pytest.approx(expected)


def test_choice_of_groups(orthodont, ax):
    data = lf.datasets.orthodont()
    plot_curves(orthodont, data, "age", ax=ax, groups=["M05", "F01"])
    assert len(lines(ax, SUBJECT)) == 2
    assert len(lines(ax, OBSERVED)[0].get_xdata()) == 8
    other = figure().subplots()
    plot_curves(orthodont, data, "age", ax=other, n_groups=5, observed=False)
    assert len(lines(other, SUBJECT)) == 5
    assert lines(other, OBSERVED) == []


def test_transformed_response_and_coded_numbers(ax):
    data = lf.datasets.cake()
    formula = "np.log(angle) ~ temp + C(day) + (1 | recipe:replicate)"
    data = data.assign(day=np.tile([1, 2, 4], 90))  # its median is a level, its mean is not
    data.loc[:3, "day"] = 1
    fit = lf.lmm(formula, data)
    plot_curves(fit, data, "temp", ax=ax)
    assert lines(ax, OBSERVED)[0].get_ydata().max() == pytest.approx(np.log(data["angle"].max()))
    assert len(lines(ax, SUBJECT)) == 45
    assert ax.get_ylabel() == "np.log(angle)"


def test_rows_with_missing_values_are_left_out(sleep, ax):
    data = lf.datasets.sleepstudy()
    data.loc[[0, 1], "Reaction"] = np.nan
    plot_curves(sleep, data, "Days", ax=ax)
    assert len(lines(ax, OBSERVED)[0].get_xdata()) == 178


def test_one_observation_is_a_mark(ax):
    data = lf.datasets.sleepstudy()
    data = data[(data["Subject"] != "S308") | (data["Days"] == 4)]
    fit = lf.lmm("Reaction ~ Days + (1 | Subject)", data)
    plot_curves(fit, data, "Days", ax=ax, groups=["S308"])
    assert lines(ax, SUBJECT)[0].get_marker() == "_"


@pytest.mark.parametrize("library", ["polars", "pyarrow", "dict"])
def test_any_table(library, sleep, ax):
    data = lf.datasets.sleepstudy().astype({"Subject": str})
    if library == "polars":
        data = pytest.importorskip("polars").from_pandas(data)
    elif library == "pyarrow":
        data = pytest.importorskip("pyarrow").Table.from_pandas(data)
    else:
        data = {name: data[name].to_numpy() for name in data}
    plot_curves(sleep, data, "Days", ax=ax)
    assert len(lines(ax, SUBJECT)) == 18


def test_method_and_new_figure(sleep):
    from matplotlib import pyplot

    ax = sleep.plot_curves(lf.datasets.sleepstudy(), "Days", n_groups=3)
    assert len(lines(ax, SUBJECT)) == 3
    pyplot.close(ax.figure)


def test_errors(sleep, orthodont, ax):
    data = lf.datasets.sleepstudy()
    with pytest.raises(lf.DataError, match="does not use a column 'Day'; did you mean 'Days'"):
        plot_curves(sleep, data, "Day", ax=ax)
    with pytest.raises(lf.DataError, match="does not use a column 'Reaction'"):
        plot_curves(sleep, data, "Reaction", ax=ax)
    with pytest.raises(lf.DataError, match="no column 'Subject'"):
        plot_curves(sleep, data.drop(columns="Subject"), "Days", ax=ax)
    with pytest.raises(lf.DataError, match="no group 'S1' of 'Subject'"):
        plot_curves(sleep, data, "Days", groups=["S1"], ax=ax)
    with pytest.raises(lf.DataError, match="'Sex' is text or categorical"):
        plot_curves(orthodont, lf.datasets.orthodont(), "Sex", ax=ax)
    with pytest.raises(lf.DataError, match="'sex' that the model does not use"):
        plot_curves(orthodont, lf.datasets.orthodont(), "age", at={"sex": "Male"}, ax=ax)
    with pytest.raises(lf.DataError, match="no complete rows"):
        plot_curves(sleep, data.assign(Reaction=np.nan), "Days", ax=ax)
    arrays = lf.fit(data["Reaction"], np.ones((180, 1)), data["Subject"])
    with pytest.raises(lf.UnsupportedModelError, match="fit of a formula"):
        plot_curves(arrays, data, "Days", ax=ax)


def test_without_matplotlib(sleep, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotError, match=r"pip install 'lmmfast\[plots\]'"):
        plot_curves(sleep, lf.datasets.sleepstudy(), "Days")
    with pytest.raises(PlotError):
        figure()
