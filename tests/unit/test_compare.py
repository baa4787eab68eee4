"""Tables of fits: the tests are those of the textbook, and nothing is compared that cannot be."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmfast as lf
from lmmfast.data.tables import open_table
from lmmfast.inference.nesting import structure_nested, terms_nested
from lmmfast.residual.columns import read_structure

ORTHODONT = lf.datasets.orthodont()
SLEEP = lf.datasets.sleepstudy()


def growth(residual=None, formula="distance ~ age * Sex", data=ORTHODONT, **options):
    options.setdefault("groups", None if "|" in formula else "Subject")
    return lf.lmm(formula, data, residual=residual, **options)


@pytest.fixture(scope="module")
def marginal():
    structures = {
        "independent": lf.Independent(),
        "cs": lf.CompoundSymmetry(),
        "toeplitz": lf.Toeplitz("age"),
        "heterogeneous": lf.HeterogeneousToeplitz("age"),
        "unstructured": lf.Unstructured("age"),
    }
    return {name: growth(structure) for name, structure in structures.items()}


def test_table(marginal):
    table = lf.compare(marginal)
    assert list(table.index) == list(marginal)
    for name, fit in marginal.items():
        row = table.loc[name]
        assert (row["nobs"], row["n_params"]) == (108, len(fit.params) + len(fit.theta))
        assert row["llf"] == fit.llf
        assert row["deviance"] == -2 * fit.llf
        assert (row["aic"], row["bic"]) == (fit.aic, fit.bic)
    assert table["delta_aic"].min() == 0
    assert table["delta_aic"].to_numpy() == pytest.approx(table["aic"] - table["aic"].min())


def test_likelihood_ratio_tests_of_a_chain(marginal):
    table = lf.compare(*marginal.values())
    assert table["df"].iloc[1:].tolist() == [1, 2, 3, 3]
    assert table["df"].isna().iloc[0]
    chisq = -np.diff(table["deviance"])
    assert table["chisq"].iloc[1:].to_numpy() == pytest.approx(chisq)
    assert (chisq > 0).all()
    p = stats.chi2.sf(chisq, [1, 2, 3, 3])
    assert table["p"].iloc[1:].to_numpy() == pytest.approx(p)
    assert table["note"].tolist() == [""] * 5


def test_order_does_not_matter_for_a_test(marginal):
    up = lf.compare(marginal["cs"], marginal["unstructured"])
    down = lf.compare([marginal["unstructured"], marginal["cs"]])
    assert up[["chisq", "p"]].iloc[1].tolist() == down[["chisq", "p"]].iloc[1].tolist()


def test_random_effects_boundary_is_noted():
    fits = [lf.lmm(f"Reaction ~ Days + ({z} | Subject)", SLEEP) for z in ("1", "1 + Days")]
    row = lf.compare(fits).iloc[1]
    assert (row["chisq"], row["df"]) == (pytest.approx(42.837, abs=1e-3), 2)  # as lme4
    assert row["note"].startswith("conservative: variance 0")
    parts = [lf.lmm("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", SLEEP), fits[1]]
    row = lf.compare(parts).iloc[1]
    assert (row["df"], row["note"]) == (1, "")


def test_labels(marginal):
    table = lf.compare(marginal["cs"], marginal["toeplitz"])
    assert list(table.index) == ["CompoundSymmetry()", "Toeplitz('age')"]
    mixed = growth(formula="distance ~ age * Sex + (1 | Subject)")
    assert list(lf.compare(marginal["cs"], mixed).index) == [
        "distance ~ age * Sex, CompoundSymmetry()",
        "distance ~ age * Sex + (1 | Subject), Independent()",
    ]
    assert list(lf.compare(mixed, mixed).index)[1].startswith("2: ")


def test_fixed_effects_nest_by_their_span():
    fits = {
        formula: growth(formula=f"distance ~ {formula} + (1 | Subject)", reml=False)
        for formula in ("1", "age", "C(age)", "C(age) * Sex", "Sex")
    }
    table = lf.compare(fits)
    assert table["df"].iloc[1:4].tolist() == [1, 2, 4]
    assert table["note"].tolist() == [""] * 5  # Sex lies within C(age) * Sex
    table = lf.compare(fits["age"], fits["C(age) * Sex"])
    assert table["df"].iloc[1] == 6
    other = growth(formula="distance ~ Sex + (1 | Subject)", reml=False)
    both = growth(formula="distance ~ np.exp(age / 10) + C(Sex) + (1 | Subject)", reml=False)
    row = lf.compare(fits["age"], both).iloc[1]
    assert np.isnan(row["p"]) and row["note"] == "not nested: fixed effects"
    assert lf.compare(other, both)["df"].iloc[1] == 1


def test_reml_needs_the_same_fixed_effects():
    a, b = (growth(formula=f"distance ~ {f} + (1 | Subject)") for f in ("age", "age + Sex"))
    with pytest.raises(lf.DataError, match=r"different fixed effects.*reml=False"):
        lf.compare(a, b)
    same = growth(formula="distance ~ C(Sex) + age + (1 + age | Subject)")
    assert lf.compare(b, same)["df"].iloc[1] == 2
    # The same span in other units: the restricted likelihood is another one.
    months = growth(formula="distance ~ I(12 * age) + (1 | Subject)")
    with pytest.raises(lf.DataError, match="different fixed effects"):
        lf.compare(a, months)


def test_other_rows_and_responses():
    fit = growth(formula="distance ~ age + (1 | Subject)")
    few = growth(formula="distance ~ age + (1 | Subject)", data=ORTHODONT.iloc[:-1])
    with pytest.raises(lf.DataError, match="different rows, 108 and 107"):
        lf.compare(fit, few)
    holes = ORTHODONT.assign(x=np.where(np.arange(108) < 5, np.nan, 1.0) * np.arange(108))
    with pytest.raises(lf.DataError, match=r"103 \(5 miss a value of 'x'\)"):
        lf.compare(fit, growth(formula="distance ~ age + x + (1 | Subject)", data=holes))
    with pytest.raises(lf.DataError, match="different values of 'distance'"):
        lf.compare(fit, fit.refit(ORTHODONT["distance"] + np.arange(108) % 2))
    log = growth(formula="np.log(distance) ~ age + (1 | Subject)")
    with pytest.raises(lf.DataError, match="different responses"):
        lf.compare(fit, log)
    with pytest.raises(lf.DataError, match="by REML and ML"):
        lf.compare(fit, growth(formula="distance ~ age + (1 | Subject)", reml=False))


def test_rows_in_another_order_are_the_same_rows():
    one = growth(formula="distance ~ age + (1 | Subject)")
    other = growth(formula="distance ~ age + (age | Subject)", data=ORTHODONT.sample(frac=1.0))
    assert lf.compare(one, other)["df"].iloc[1] == 2


def test_without_data():
    one = growth(formula="distance ~ age + (1 | Subject)")
    other = growth(formula="distance ~ age + (age | Subject)")
    expected = lf.compare(one, other)
    saved = pickle.loads(pickle.dumps(one))
    pd.testing.assert_frame_equal(lf.compare(saved, other.remove_data()), expected)
    with pytest.raises(lf.DataError, match="different values"):
        lf.compare(
            saved,
            growth(
                formula="distance ~ age + (age | Subject)",
                data=ORTHODONT.assign(distance=ORTHODONT["distance"] * 2.0),
            ),
        )


def test_appended_rows_have_no_checksum():
    half = ORTHODONT.iloc[:60]
    grown = [
        growth(formula=f"distance ~ age + ({z} | Subject)", data=half).append(ORTHODONT.iloc[60:])
        for z in ("1", "age")
    ]
    whole = growth(formula="distance ~ age + (age | Subject)")
    assert lf.compare(grown[0], whole)["df"].iloc[1] == 2


def test_columns_of_one_name_with_other_values():
    shifted = ORTHODONT.assign(age=ORTHODONT["age"] ** 2)
    a = growth(formula="distance ~ Sex + (0 + age | Subject)")
    b = growth(formula="distance ~ Sex + (age | Subject)", data=shifted)
    assert lf.compare(a, b)["note"].iloc[1] == "no test: 'age' of Z differs between them"
    w = np.arange(1.0, 109.0)
    b = growth(formula="distance ~ Sex + (age | Subject)", weights=w)
    assert lf.compare(a, b)["note"].iloc[1] == "not nested: different weights"


def test_what_is_not_known_has_no_test(marginal):
    exponential = growth(lf.SpatialExponential("age", nugget=True))
    ante = growth(lf.HeterogeneousAntedependence("age"))
    note = lf.compare(exponential, ante)["note"].iloc[1]
    assert note == "not known to be nested: covariance models"
    equal = growth(lf.AR1("age"))
    assert lf.compare(marginal["cs"], equal)["note"].iloc[1] == "not nested: as many parameters"
    note = lf.compare(marginal["independent"], exponential)["note"].iloc[1]
    assert note.startswith("rough")
    process = growth(lf.SpatialExponential("age"))
    assert (
        lf.compare(marginal["independent"], process)["note"]
        .iloc[1]
        .startswith("conservative: correlation 0")
    )
    assert lf.compare(process, exponential)["note"].iloc[1].startswith("conservative: variance 0")


def test_random_effects_within_a_marginal_structure(marginal):
    intercept = growth(formula="distance ~ age * Sex + (1 | Subject)")
    slope = growth(formula="distance ~ age * Sex + (age | Subject)")
    assert lf.compare(intercept, marginal["toeplitz"])["df"].iloc[1] == 2
    assert lf.compare(slope, marginal["unstructured"])["df"].iloc[1] == 6
    assert lf.compare(slope, marginal["heterogeneous"])["df"].isna().iloc[1]
    serial = growth(lf.AR1("age"), "distance ~ age * Sex + (1 | Subject)")
    assert lf.compare(intercept, serial)["df"].iloc[1] == 1
    assert lf.compare(serial, marginal["unstructured"])["df"].iloc[1] == 7


def nested(small, big, data):
    small, columns = read_structure(small, open_table(data))
    big, more = read_structure(big, open_table(data))
    return structure_nested(small, big, {**columns, **more})


VISITS = {
    "t": np.tile([0.0, 1.0, 2.0, 3.0], 3),
    "gap": np.tile([0.0, 1.0, 4.0, 6.0], 3),
    "visit": np.tile(["a", "b", "c", "d"], 3),
    "arm": np.repeat(["x", "y", "z"], 4),
}
YES = [
    (lf.Independent(), lf.AR1("t")),
    (lf.CompoundSymmetry(), lf.HeterogeneousCS("visit")),
    (lf.CompoundSymmetry(), lf.Toeplitz("t")),
    (lf.CompoundSymmetry(), lf.CompoundSymmetry(by="arm")),
    (lf.AR1("t"), lf.HeterogeneousAR1("t")),
    (lf.AR1("t"), lf.AR1("t", by="arm")),
    (lf.AR1("t"), lf.Toeplitz("t")),
    (lf.AR1("gap"), lf.ARMA11("gap")),
    (lf.ARMA11("visit"), lf.Toeplitz("visit")),
    (lf.ARMA11("gap"), lf.Unstructured("gap")),
    (lf.AR1("gap"), lf.Antedependence("gap")),
    (lf.AR1("visit"), lf.Toeplitz("visit")),
    (lf.OU("t"), lf.OU("t", nugget=True)),
    (lf.OU("t", nugget=True), lf.Toeplitz("t")),
    (lf.OU("gap", nugget=True), lf.Unstructured("gap")),
    (lf.OU("t"), lf.Antedependence("t")),
    (lf.Toeplitz("t", bands=1), lf.Toeplitz("t", bands=2)),
    (lf.Toeplitz("t", bands=2), lf.Toeplitz("t")),
    (lf.Toeplitz("t"), lf.HeterogeneousToeplitz("t")),
    (lf.HeterogeneousToeplitz("t"), lf.Unstructured("t")),
    (lf.HeterogeneousAntedependence("t"), lf.Unstructured("t")),
    (lf.Unstructured("t"), lf.Unstructured("t", by="arm")),
    (lf.ByGroup("t"), lf.Unstructured("t")),
    (lf.VarPower("t"), lf.ByGroup("t")),
    (lf.VarExp("t"), lf.VarExp("t", by="arm")),
    (lf.AR1("t"), lf.AR1("t") * lf.ByGroup("arm")),
    (lf.AR1("t") * lf.VarExp("t"), lf.HeterogeneousAR1("t")),
    (lf.SpatialPower("t"), lf.OU("t", nugget=True)),
]
NO = [
    (lf.AR1("gap"), lf.Toeplitz("gap")),
    (lf.AR1("t"), lf.Toeplitz("visit")),
    (lf.AR1("t"), lf.CompoundSymmetry()),
    (lf.ARMA11("t"), lf.AR1("t")),
    (lf.ARMA11("gap"), lf.Toeplitz("gap")),
    (lf.CompoundSymmetry(), lf.ARMA11("t")),
    (lf.OU("t", nugget=True), lf.ARMA11("t")),
    (lf.ARMA11("t"), lf.Antedependence("t")),
    (lf.CompoundSymmetry(), lf.Antedependence("t")),
    (lf.OU("t", nugget=True), lf.OU("t")),
    (lf.OU("t", nugget=True), lf.Antedependence("t")),
    (lf.OU("t"), lf.SpatialGaussian("t", nugget=True)),
    (lf.SpatialMatern("t"), lf.SpatialMatern("t", nu=2.5, nugget=True)),
    (lf.Toeplitz("t"), lf.Toeplitz("t", bands=2)),
    (lf.HeterogeneousCS("t"), lf.Toeplitz("t")),
    (lf.AR1("t", by="arm"), lf.Unstructured("t")),
    (lf.ByGroup("arm"), lf.Unstructured("t")),
    (lf.VarPower("t"), lf.VarExp("t", by="arm")),
    (lf.AR1("t"), lf.ByGroup("t")),
]


@pytest.mark.parametrize(("small", "big"), YES, ids=str)
def test_nested_structures(small, big):
    assert nested(small, big, VISITS)
    assert not nested(big, small, VISITS)


@pytest.mark.parametrize(("small", "big"), NO, ids=str)
def test_structures_that_are_not_nested(small, big):
    assert not nested(small, big, VISITS)


@pytest.mark.parametrize(
    ("small", "big", "expected"),
    [
        ("(1 | g)", "(1 + t | g)", True),
        ("(1 | g) + (0 + t | g)", "(1 + t | g)", True),
        ("(1 + t || g)", "(1 + t | g)", True),
        ("(1 | g)", "(1 + t || g)", True),
        ("(0 + t + x | g)", "(0 + t | g) + (0 + x | g)", False),
        ("(1 + t | g)", "(1 | g)", False),
        ("identity(1 + t | g)", "cs(1 + t | g)", True),
        ("cs(1 + t | g, hom=True)", "cs(1 + t | g)", True),
        ("diag(1 + t | g)", "cs(1 + t | g)", True),
        ("diag(1 + t | g)", "cs(1 + t | g, hom=True)", False),
        ("(1 | g)", "cs(1 + t | g)", False),
        ("cs(1 + t | g)", "(1 + t + x | g)", True),
    ],
)
def test_nested_terms(small, big, expected):
    from lmmfast.design.from_formula import FormulaDesign

    data = {
        "y": np.arange(12.0),
        "t": VISITS["t"],
        "x": VISITS["gap"],
        "g": VISITS["arm"],
    }
    terms = [FormulaDesign(f"y ~ {bars}", data).terms for bars in (small, big)]
    assert terms_nested(*terms) is expected


def test_arguments(marginal):
    with pytest.raises(ValueError, match="at least one"):
        lf.compare([])
    with pytest.raises(TypeError, match="takes fits"):
        lf.compare(marginal["cs"], 3)
    assert lf.compare(marginal["cs"])["df"].isna().all()
