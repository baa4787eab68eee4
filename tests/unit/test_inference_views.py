"""Views of a fit with other degrees of freedom, and tests of linear hypotheses."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmfast as lf
from lmmfast.inference.totals import inference_totals


@pytest.fixture(scope="module")
def fit():
    return lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())


def test_tables_follow(fit):
    view = fit.inference("kenward-roger")
    table = view.tidy(0.1)
    se = np.sqrt(np.diag(view.cov_params()))
    np.testing.assert_allclose(table["std_error"], se)
    np.testing.assert_allclose(view.bse, se)
    np.testing.assert_allclose(view.tvalues, fit.params / se)
    p = 2 * stats.t.sf(abs(view.tvalues), view.df)
    np.testing.assert_allclose(view.pvalues, p, rtol=1e-10)
    np.testing.assert_allclose(table["p_value"], p, rtol=1e-10)
    half = stats.t.ppf(0.95, view.df) * se
    np.testing.assert_allclose(table["conf_high"], fit.params + half)
    np.testing.assert_allclose(view.conf_int(0.1)[0], fit.params - half)
    assert "Kenward and Roger" in str(view.summary())


def test_the_fit_stays_as_it_was(fit):
    before = fit.tidy()
    fit.inference("kenward-roger").tidy()
    pd.testing.assert_frame_equal(fit.tidy(), before)
    again = fit.inference("kenward-roger").inference("satterthwaite")
    pd.testing.assert_frame_equal(again.tidy(), before)


def test_normal_and_residual(fit):
    normal, residual = fit.inference("normal"), fit.inference("residual")
    assert np.isinf(normal.df).all() and (residual.df == 108 - 4).all()
    np.testing.assert_allclose(normal.pvalues, 2 * stats.norm.sf(abs(fit.tvalues)), rtol=1e-12)
    assert "Wald" in str(normal.summary()) and "P>|z|" in str(normal.summary())
    assert "n - p" in str(residual.summary())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda fit: fit.inference("satterwaite"), ValueError, "'satterthwaite'"),
        (lambda fit: fit.inference(information="fisher"), ValueError, "'observed', 'expected'"),
        (lambda fit: fit.test("agee = 0"), lf.DataError, "there are Intercept, age"),
        (lambda fit: fit.test("age ="), lf.DataError, "no linear hypothesis"),
        (lambda fit: fit.test({"agee": 1}), lf.DataError, "no coefficient is called 'agee'"),
        (lambda fit: fit.test([[1, 0, 0]]), lf.DataError, "rows of 4 weights"),
        (lambda fit: fit.test([1, 0, 0, np.nan]), lf.DataError, "not all finite"),
        (lambda fit: fit.test([0, 0, 0, 0]), lf.DataError, "only zeros"),
        (lambda fit: fit.test("age = 0, 2 * age = 1"), lf.DataError, "depend on each other"),
        (lambda fit: fit.test(np.zeros((0, 4))), lf.DataError, "shape"),
    ],
)
def test_errors(fit, call, error, message):
    with pytest.raises(error, match=message):
        call(fit)


def test_kenward_roger_needs_reml_and_a_linear_d():
    data = lf.datasets.sleepstudy()
    ml = lf.lmm("Reaction ~ Days + (Days | Subject)", data, reml=False)
    with pytest.raises(lf.UnsupportedModelError, match="REML"):
        ml.inference("kenward-roger")
    cs = lf.lmm("Reaction ~ Days + cs(Days | Subject)", data)
    with pytest.raises(lf.UnsupportedModelError, match="heterogeneous"):
        cs.inference("kenward-roger")
    assert cs.df.notna().all()


def test_hypotheses_in_words_and_in_numbers(fit):
    text = fit.test("Sex[T.Male] = 0, age:Sex[T.Male] = 0")
    rows = [list(fit.x_names).index(name) for name in ("Sex[T.Male]", "age:Sex[T.Male]")]
    matrix = fit.test(np.eye(4)[rows])
    assert text.p_value == matrix.p_value
    by_hand = fit.params.iloc[rows]
    C = fit.cov_params().iloc[rows, rows]
    assert text.statistic == pytest.approx(by_hand @ np.linalg.solve(C, by_hand) / 2)
    mapping = fit.test({"age": 1, "age:Sex[T.Male]": 0.5})
    assert mapping.frame["estimate"].iloc[0] == pytest.approx(
        fit.params["age"] + fit.params["age:Sex[T.Male]"] / 2
    )
    against = fit.test("age = 0.5").frame.iloc[0]
    assert against["estimate"] == pytest.approx(fit.params["age"])
    assert against["null"] == 0.5
    assert against["statistic"] == pytest.approx((fit.params["age"] - 0.5) / fit.bse["age"])
    assert (against["conf_low"], against["conf_high"]) == pytest.approx(
        tuple(fit.conf_int().loc["age"])
    )
    one = fit.test("age = 0")
    assert one.p_value == pytest.approx(fit.pvalues["age"])
    assert one.statistic == pytest.approx(fit.tvalues["age"] ** 2)
    assert fit.t_test("age = 0").p_value == fit.wald_test("age = 0").p_value == one.p_value
    assert "F(1, 25)" in str(one)


def test_saved_fits_keep_their_degrees_of_freedom(fit):
    saved = pickle.loads(pickle.dumps(fit))
    pd.testing.assert_frame_equal(saved.tidy(), fit.tidy())
    bare = fit.remove_data().inference("kenward-roger")
    pd.testing.assert_frame_equal(bare.tidy(), fit.inference("kenward-roger").tidy())


def test_weights_and_units_do_not_matter(fit):
    """Degrees of freedom are free of the units of y, of X, of weights and of the parameters."""
    data = lf.datasets.orthodont()
    data["distance"] *= 1e5
    data["age"] = (data["age"] - 11) * 1e-3
    data["w"] = 7.0
    other = lf.lmm("distance ~ age * Sex + (age | Subject)", data, weights="w")
    for ddf in ("satterthwaite", "kenward-roger"):
        want, got = (
            f.test("age:Sex[T.Male] = 0") for f in map(lambda f: f.inference(ddf), (fit, other))
        )
        assert got.df_denom == pytest.approx(want.df_denom, rel=1e-8)
        assert got.p_value == pytest.approx(want.p_value, rel=1e-8)


@pytest.fixture(scope="module")
def crossed():
    rng = np.random.default_rng(8)
    n = 400
    a, b = rng.integers(0, 30, n), rng.integers(0, 12, n)
    data = pd.DataFrame({"a": a, "b": b, "x": rng.normal(size=n), "t": rng.normal(size=30)[a]})
    data["y"] = data.x + rng.normal(size=30)[a] + rng.normal(size=12)[b] + rng.normal(size=n)
    return data


def test_kenward_roger_of_many_crossed_effects(crossed, monkeypatch):
    """By solves, and the average information in place of the expected one."""
    formula = "y ~ x + t + (1 + x | a) + (1 | b)"
    exact = lf.lmm(formula, crossed)
    want = exact.inference("kenward-roger")
    monkeypatch.setattr("lmmfast.engines.crossed.CrossedEngine.exact_limit", 0)
    fit = lf.lmm(formula, crossed)
    assert fit._inference_totals.r is None
    view = fit.inference("kenward-roger")
    added, expected = (v.bse - exact.bse for v in (view, want))
    np.testing.assert_allclose(added, expected, rtol=0.2)  # average against expected information
    np.testing.assert_allclose(view.df, want.df, rtol=0.2)
    average = inference_totals(fit, at_any_cost=True)
    np.testing.assert_allclose(average.r, want._inference_totals.r, rtol=1e-6, atol=1e-9)
