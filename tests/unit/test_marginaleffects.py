"""Fits as models of the package marginaleffects: the numbers of our marginal means and slopes."""

import sys

import numpy as np
import pytest

import lmmfast as lf

# Of polars' functions that marginaleffects calls.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def fit():
    return lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())


@pytest.fixture(scope="module")
def me():
    polars = pytest.importorskip("polars")
    if int(polars.__version__.split(".")[0]) > 1:
        pytest.skip("marginaleffects 0.6 calls what polars 2 has removed")
    return pytest.importorskip("marginaleffects")


def compared(table, frame, errors=1e-6):
    for column in ("estimate", "std_error", "conf_low", "conf_high"):
        np.testing.assert_allclose(table[column].to_numpy(), frame[column], rtol=errors, atol=1e-6)


def test_predictions(fit, me):
    grid = {"Sex": ["Female", "Male"], "age": [8.0, 14.0]}
    model = fit.to_marginaleffects()
    table = me.predictions(model, newdata=me.datagrid(model=model, **grid)).sort(["age", "Sex"])
    compared(table, fit.emmeans("Sex", by="age", at={"age": [8.0, 14.0]}).frame)


def test_slopes_and_comparisons(fit, me):
    """Slopes are quotients of differences, their errors differences of these: a few digits."""
    model = fit.to_marginaleffects()
    slopes = me.avg_slopes(model, variables="age", by="Sex").sort("Sex")
    compared(slopes, fit.emtrends("Sex", "age").frame, 1e-2)
    sexes = me.avg_comparisons(model, variables="Sex")
    compared(sexes, fit.emmeans("Sex").pairs(reverse=True).frame, 1e-6)


def test_method_of_inference(fit, me):
    robust = fit.inference(vcov="CR2")
    by_view = me.avg_comparisons(robust.to_marginaleffects(), variables="Sex")
    by_name = me.avg_comparisons(fit.to_marginaleffects(), variables="Sex", vcov="CR2")
    assert by_view["std_error"].item() == pytest.approx(by_name["std_error"].item())
    want = robust.emmeans("Sex").pairs(reverse=True).frame["std_error"].item()
    assert by_view["std_error"].item() == pytest.approx(want, rel=1e-6)
    normal = me.avg_comparisons(fit.inference("normal").to_marginaleffects(), variables="Sex")
    half = (normal["conf_high"] - normal["conf_low"]).item() / 2
    assert half / normal["std_error"].item() == pytest.approx(1.959964, rel=1e-6)


def test_refusals(fit, monkeypatch):
    X = np.ones((108, 1))
    data = lf.datasets.orthodont()
    arrays = lf.fit(data["distance"].to_numpy(), X, data["Subject"].to_numpy())
    with pytest.raises(lf.DataError, match="fitted to arrays"):
        arrays.to_marginaleffects()
    monkeypatch.setitem(sys.modules, "marginaleffects", None)
    monkeypatch.setitem(sys.modules, "marginaleffects.classes", None)
    with pytest.raises(ImportError, match="lmmfast\\[marginaleffects\\]"):
        fit.to_marginaleffects()


def test_without_rows(fit, me):
    with pytest.raises(lf.DataError, match="marginal effects need the data"):
        fit.remove_data().to_marginaleffects()
