"""Tests of terms, marginal means, and degrees of freedom by counting, beside plain algebra."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmfast as lf
from lmmfast.inference.adjust import Family, adjusted_p, critical_values


@pytest.fixture(scope="module")
def fit():
    return lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())


@pytest.fixture(scope="module")
def cells():
    """A factor of three levels and one of two, with an empty cell."""
    rng = np.random.default_rng(3)
    n = 240
    data = pd.DataFrame(
        {
            "g": np.repeat(np.arange(30), 8),
            "a": rng.choice(["x", "y", "z"], n),
            "b": rng.choice(["l", "r"], n),
            "t": rng.normal(size=n),
        }
    )
    data["y"] = rng.normal(size=n) + rng.normal(size=30)[data["g"]]
    return data[(data["a"] != "z") | (data["b"] != "r")]


def test_terms_of_no_interaction_are_the_t_tests(fit):
    simple = lf.lmm("distance ~ age + Sex + (age | Subject)", lf.datasets.orthodont())
    for table in (simple.anova(), simple.anova(type=2), simple.drop1()):
        np.testing.assert_allclose(table["statistic"], simple.tvalues[1:] ** 2, rtol=1e-10)
        np.testing.assert_allclose(table["df_denom"], simple.df[1:], rtol=1e-10)
        np.testing.assert_allclose(table["p_value"], simple.pvalues[1:], rtol=1e-8)
    assert list(fit.drop1().index) == ["age:Sex"]


def test_type_three_does_not_depend_on_the_baseline():
    data = lf.datasets.cake()
    data["temperature"] = data["temperature"].astype(str)
    tables = []
    for levels in (["A", "B", "C"], ["C", "A", "B"]):
        data["recipe"] = pd.Categorical(data["recipe"].astype(str), levels)
        fit = lf.lmm("angle ~ recipe * temperature + (1 | recipe:replicate)", data)
        tables.append(fit.inference("kenward-roger").anova())
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-8)


def test_normal_tables_of_terms_are_of_chi_square(fit):
    row = fit.inference("normal").anova().loc["age:Sex"]
    assert np.isinf(row["df_denom"])
    assert row["p_value"] == pytest.approx(stats.chi2.sf(row["statistic"], 1), rel=1e-10)


def test_covariates_of_several_columns_are_one_term():
    data = lf.datasets.orthodont()
    fit = lf.lmm("distance ~ bs(age, df=3) * Sex + (1 | Subject)", data)
    table = fit.anova()
    assert list(table["df_num"]) == [3, 1, 3]
    numbered = lf.lmm("distance ~ C(age) + Sex + (1 | Subject)", data)
    assert list(numbered.anova()["df_num"]) == [3, 1]


def test_means_are_predictions_of_the_grid(fit):
    means = fit.emmeans("Sex", at={"age": 10}).frame
    new = pd.DataFrame({"Sex": ["Female", "Male"], "age": 10.0})
    np.testing.assert_allclose(means["estimate"], fit.predict(new), rtol=1e-12)
    X = np.array([[1, 10, 0, 0], [1, 10, 1, 10.0]])
    C = fit.cov_params().to_numpy()
    np.testing.assert_allclose(means["std_error"] ** 2, np.diag(X @ C @ X.T), rtol=1e-12)
    slopes = fit.emtrends("Sex", "age").frame["estimate"]
    assert slopes.iloc[1] == pytest.approx(fit.params["age"] + fit.params.iloc[3], rel=1e-9)


def test_means_within(fit):
    means = fit.emmeans("Sex", by="age", at={"age": [8, 14]})
    pairs = means.pairs().frame
    assert list(pairs["age"]) == [8, 14]
    assert set(pairs["contrast"]) == {"Female - Male"}
    young = -(fit.params["Sex[T.Male]"] + 8 * fit.params["age:Sex[T.Male]"])
    assert pairs["estimate"].iloc[0] == pytest.approx(young, rel=1e-10)
    np.testing.assert_allclose(means.test()["statistic"], pairs["statistic"] ** 2, rtol=1e-9)


def test_contrasts(fit):
    means = fit.emmeans("age", at={"age": [8, 10, 12, 14]})
    linear = means.contrast("poly").frame
    slope = fit.params["age"] + fit.params["age:Sex[T.Male]"] / 2
    assert linear["estimate"].iloc[0] == pytest.approx(20 * slope, rel=1e-9)  # -3 -1 1 3
    np.testing.assert_allclose(linear["estimate"].iloc[1:], 0, atol=1e-9)
    own = means.contrast({"late": [0, 0, -1, 1]}).frame["estimate"].iloc[0]
    assert own == pytest.approx(2 * slope, rel=1e-10)
    steps = means.contrast("consec").frame
    np.testing.assert_allclose(steps["estimate"], 2 * slope, rtol=1e-9)
    assert len(means.contrast("eff").frame) == 4


def test_means_of_empty_cells_are_not_estimable(cells):
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm("y ~ a * b + t + (1 | g)", cells)
    frame = fit.emmeans(["a", "b"]).frame.set_index(["a", "b"])
    assert frame.loc[("z", "r")].isna().all()
    assert frame.drop(index=("z", "r")).notna().all().all()
    assert fit.emmeans("a").frame.set_index("a")["estimate"].isna().tolist() == [False, False, True]
    with pytest.raises(lf.UnsupportedModelError, match="type=1 or type=2"):
        fit.anova()
    assert fit.anova(type=2).notna().all().all()


def test_multivariate_t_is_tukeys_and_dunnetts():
    """Balanced means: the studentized range; SciPy's own Dunnett tails for a control."""
    t = np.array([2.1, 2.7, 0.6])
    rows = np.array([[1, -1, 0], [1, 0, -1], [0, 1, -1.0]])
    correlation = rows @ rows.T / 2
    family = Family(t, np.full(3, 12.0), correlation, 3, 2, True)
    np.testing.assert_allclose(adjusted_p(family, "mvt"), adjusted_p(family, "tukey"), atol=2e-3)
    np.testing.assert_allclose(
        critical_values(family, "mvt", 0.05), critical_values(family, "tukey", 0.05), rtol=5e-3
    )


@pytest.mark.parametrize("method", ["bonferroni", "holm", "sidak", "scheffe", "tukey", "dunnettx"])
def test_normal_tails_are_the_limit_of_t(method):
    t, correlation = np.array([1.9, 2.5, 0.4]), np.eye(3)
    ends = [Family(t, np.full(3, df), correlation, 3, 3, True) for df in (np.inf, 1e7)]
    p = [adjusted_p(family, method) for family in ends]
    np.testing.assert_allclose(p[0], p[1], rtol=1e-5)
    half = [critical_values(family, method, 0.05) for family in ends]
    np.testing.assert_allclose(half[0], half[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda fit: fit.anova(type=4), ValueError, "choose 1, 2 or 3"),
        (lambda fit: fit.emmeans("sex"), lf.DataError, "no column 'sex': there are Sex, age"),
        (lambda fit: fit.emmeans([]), lf.DataError, "no column"),
        (lambda fit: fit.emmeans("Sex", at={"ag": 1}), lf.DataError, "no column 'ag'"),
        (lambda fit: fit.emmeans("Sex", at={"Sex": "Boy"}), lf.DataError, "'Boy'"),
        (lambda fit: fit.emmeans("Sex", weights="some"), ValueError, "'proportional'"),
        (lambda fit: fit.emtrends("Sex", "Sex"), lf.DataError, "is a factor"),
        (lambda fit: fit.emmeans("Sex").pairs("fdr"), ValueError, "'holm'"),
        (lambda fit: fit.emmeans("Sex").contrast("eff", adjust="tukey"), ValueError, "pairwise"),
        (lambda fit: fit.emmeans("Sex").contrast("all"), ValueError, "'trt.vs.ctrl'"),
        (lambda fit: fit.emmeans("Sex").contrast({"a": [1]}), lf.DataError, "there are 2 means"),
        (lambda fit: fit.conf_int_theta(method="exact"), ValueError, "'wald'"),
        (lambda fit: fit.conf_int_theta(information="none"), ValueError, "'expected'"),
        (lambda fit: fit.inference(vcov="HC0"), ValueError, "'model'"),
        (lambda fit: fit.inference(cluster="Subject"), ValueError, "robust"),
    ],
)
def test_errors(fit, call, error, message):
    with pytest.raises(error, match=message):
        call(fit)


def test_arrays_have_no_terms():
    rng = np.random.default_rng(1)
    X, groups = np.column_stack([np.ones(60), rng.normal(size=60)]), np.repeat(np.arange(12), 5)
    fit = lf.fit(rng.normal(size=60) + rng.normal(size=12)[groups], X, groups)
    for call in (fit.anova, fit.drop1, lambda: fit.emmeans("x")):
        with pytest.raises(lf.DataError, match="fitted to arrays"):
            call()
    counted = fit.inference("between-within")
    assert counted.df.to_list() == [12 - 1, 60 - 12 - 1]
    assert "between and within" in str(counted.summary())


def test_crossed_factors_have_no_subjects():
    fit = lf.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", lf.datasets.penicillin())
    with pytest.raises(lf.UnsupportedModelError, match="are crossed"):
        _ = fit.inference("inner-outer").df


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize(
    "fixed",
    [
        "C(recipe, contr.sum) * C(temperature, contr.helmert)",
        "C(recipe, contr.poly) * C(temperature, contr.treatment('T195'))",
        "C(recipe, contr.sum) * temperature",
    ],
)
def test_terms_do_not_depend_on_the_coding(fixed, kind, tmp_path):
    """Beside treatment coding, whose tables are lmerTest's (tests/oracle/test_terms.py).

    Fai and Cornelius' degrees of freedom depend on how hypotheses are written; those of type 3 are
    written alike.
    """
    data = lf.datasets.cake()
    data = data[np.arange(len(data)) % 11 != 5]
    want = lf.lmm("angle ~ recipe * temperature + (1 | replicate)", data).anova(kind)
    fit = lf.lmm(f"angle ~ {fixed} + (1 | replicate)", data)
    table = fit.anova(kind)
    digits = 1e-7 if kind == 3 else 1e-3
    np.testing.assert_allclose(table["statistic"], want["statistic"], rtol=1e-7)
    np.testing.assert_allclose(table["df_denom"], want["df_denom"], rtol=digits)
    if kind == 3:
        fit.save(tmp_path / "fit")
        np.testing.assert_allclose(lf.load(tmp_path / "fit").anova(3), want, rtol=1e-7)


def test_covariates_beside_other_codings():
    data = lf.datasets.cake()
    want = lf.lmm("angle ~ recipe * temp + (1 | replicate)", data).anova()
    coded = lf.lmm("angle ~ C(recipe, contr.sum) * temp + (1 | replicate)", data)
    np.testing.assert_allclose(coded.anova(), want, rtol=1e-7)
    np.testing.assert_allclose(coded.drop1(), want.tail(1), rtol=1e-7)


def test_a_column_coded_twice_has_no_cells():
    data = lf.datasets.cake()
    fit = lf.lmm("angle ~ C(recipe, contr.sum) + recipe:temp + (1 | replicate)", data)
    with pytest.raises(lf.UnsupportedModelError, match="'recipe' is in the model as"):
        fit.anova()
    assert len(fit.anova(1)) == 2


def test_marginal_means_of_other_codings():
    data = lf.datasets.orthodont()
    fit = lf.lmm("distance ~ age * C(Sex, contr.sum) + (1 | Subject)", data)
    means = fit.emmeans("Sex").frame
    plain = lf.lmm("distance ~ age * Sex + (1 | Subject)", data).emmeans("Sex").frame
    np.testing.assert_allclose(means["estimate"], plain["estimate"], rtol=1e-9)
    np.testing.assert_allclose(means["std_error"], plain["std_error"], rtol=1e-9)


def test_methods_of_a_fit_from_the_beginning():
    data = lf.datasets.sleepstudy()
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data, ddf="kenward-roger")
    view = lf.lmm("Reaction ~ Days + (Days | Subject)", data).inference("kenward-roger")
    pd.testing.assert_frame_equal(fit.tidy(), view.tidy())
    again = fit.refit(2 * data["Reaction"])  # refits keep the method
    np.testing.assert_allclose(again.bse, 2 * fit.bse, rtol=1e-6)
    assert "Kenward and Roger" in str(again.summary())
    with pytest.raises(ValueError, match="'between-within'"):
        lf.lmm("Reaction ~ Days + (Days | Subject)", data, ddf="containment")


def test_intervals_on_the_boundary_are_unknown():
    fit = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff2())
    table = fit.conf_int_theta()
    assert table.loc["sd(Intercept|Batch)", ["std_error", "conf_low", "conf_high"]].isna().all()
    assert table.loc["var(Residual)"].notna().all()


def test_intervals_of_structures():
    """cor(...) of homogeneous compound symmetry is a parameter; of diagonal D there is none."""
    data = lf.datasets.sleepstudy()
    diagonal = lf.lmm("Reaction ~ Days + (Days || Subject)", data).conf_int_theta()
    assert not any(label.startswith("cor(") for label in diagonal.index)
    series = lf.lmm("Reaction ~ Days", data, groups="Subject", residual=lf.AR1("Days"))
    table = series.conf_int_theta()
    assert list(table.index) == series.theta_names
    assert (table["conf_low"] < table["estimate"]).all()


def test_sums_that_are_not_kept_are_made_when_they_are_asked_for(monkeypatch):
    """Kenward and Roger's errors of many coefficients, and tables in either order."""
    data = lf.datasets.orthodont()
    formula = "distance ~ age * Sex + (age | Subject)"
    kept = lf.lmm(formula, data)
    monkeypatch.setattr("lmmfast.result.MAX_KEPT_TOTALS", 0)
    fit = lf.lmm(formula, data)
    errors_first = fit.theta_se
    np.testing.assert_array_equal(fit.df, kept.df)
    assert fit._inference_totals.r is None
    pd.testing.assert_frame_equal(
        fit.inference("kenward-roger").tidy(), kept.inference("kenward-roger").tidy()
    )
    np.testing.assert_array_equal(errors_first, kept.theta_se)


def test_a_mean_alone_has_nothing_to_be_compared_with(fit):
    with pytest.raises(lf.DataError, match="one mean alone"):
        fit.emmeans("age").pairs()
    table = fit.emmeans("age", by="Sex").test()
    assert list(table["df_num"]) == [0, 0]
    assert table["p_value"].isna().all()


def test_joint_tests_leave_out_what_is_not_estimable():
    data = lf.datasets.orthodont()
    data["part"] = np.where(data["age"] > 9, "late", "early")
    data = data[(data["Sex"] == "Female") | (data["part"] == "early")]
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm("distance ~ Sex * part + (1 | Subject)", data)
    means = fit.emmeans(["Sex", "part"])
    assert means.frame["estimate"].isna().sum() == 1
    assert means.test()["df_num"].item() == 2
    within = fit.emmeans("Sex", by="part").pairs().test().set_index("part")
    assert np.isnan(within.loc["late", "p_value"])
    assert 0 < within.loc["early", "p_value"] < 1
