"""The printed report: every number of the fit in it, in 88 columns, as text and as HTML."""

import pickle
import re
import time
import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.report.text import decimal_places, shorten, text_table, write_number, write_p

SLEEP = "Reaction ~ Days + (Days | Subject)"
BOUNDARY = "log_titer ~ log_days + log_titer_baseline + (1 + log_days | infant)"


@pytest.fixture(scope="module")
def sleep():
    return lf.lmm(SLEEP, lf.datasets.sleepstudy())


@pytest.fixture(scope="module")
def hepatitis():
    return lf.lmm(BOUNDARY, lf.datasets.hepatitis())


@pytest.fixture(scope="module")
def wide():
    """Ten random effects with long names, columns of very different scales, one dependent."""
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(150), 20)
    Z = rng.normal(size=(len(g), 10))
    y = (Z * rng.normal(size=(150, 10))[g]).sum(axis=1) + rng.normal(size=len(g))
    X = np.column_stack([np.ones(len(g)), Z, 2 * Z[:, 1], 1e8 * rng.normal(size=len(g))])
    names = [f"a rather long name of effect number {k}" for k in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lf.RankWarning)
        return lf.fit(y, X, g, Z, z_names=names, group_name="a_group_with_a_long_name" * 2)


class Cells(HTMLParser):
    """Collects the cells and checks that every tag is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.cells, self.tables = [], [], 0

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        self.tables += tag == "table"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "code", "li", "p", "b"):
            self.cells.append(data)


def parse(html):
    parser = Cells()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def row_of(text, label):
    """Numbers in the last line that begins with a label."""
    line = next(x for x in reversed(text.splitlines()) if x.startswith(label))
    return [float(x) for x in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]\d+)?", line)]


def test_text_holds_the_fit(sleep):
    text = str(sleep.summary())
    assert text.startswith("Linear mixed model fitted by restricted maximum likelihood (REML)\n")
    assert SLEEP in text
    assert re.search(r"^Rows +180 ", text, re.M)
    assert re.search(r"^Groups +18 \(Subject\)", text, re.M)
    assert "10 in each" in text
    for value in (sleep.llf, sleep.deviance, sleep.aic, sleep.bic):
        assert f" {value:.4f}\n" in text
    assert "Convergence: converged (Newton decrement" in text
    assert "t with Satterthwaite's degrees of freedom" in text
    estimate, error, z, df, _, low, high = row_of(text, "Days  ")
    interval = sleep.conf_int().loc["Days"]
    assert estimate == pytest.approx(sleep.params["Days"], abs=5e-4)
    assert error == pytest.approx(sleep.bse["Days"], abs=5e-4)
    assert z == pytest.approx(sleep.tvalues["Days"], abs=5e-3)
    assert df == pytest.approx(17.0, abs=0.05)
    assert (low, high) == pytest.approx(tuple(interval), abs=5e-4)
    variance, se, sd = row_of(text, "Residual")
    assert variance == pytest.approx(sleep.scale, abs=5e-3)
    assert se == pytest.approx(sleep.theta_se["var(Residual)"], abs=5e-3)
    assert sd == pytest.approx(sleep.sigma, abs=5e-4)
    assert "0.066" in text


def test_ml_and_alpha():
    fit = lf.lmm(SLEEP, lf.datasets.sleepstudy(), reml=False)
    text = str(fit.summary(alpha=0.2))
    assert "maximum likelihood (ML)" in text and "REML" not in text
    assert "[10%" in text and "90%]" in text
    assert row_of(text, "Days  ")[-2:] == pytest.approx(
        tuple(fit.conf_int(0.2).loc["Days"]), abs=5e-4
    )


def test_repr_is_the_text(sleep):
    assert repr(sleep.summary()) == str(sleep.summary())


def test_decimal_points_align(sleep):
    lines = str(sleep.summary()).splitlines()
    first = lines.index("Random effects") + 2
    points = [[m.start() for m in re.finditer(r"\.\d", x)][:3] for x in lines[first : first + 3]]
    assert points[0] == points[1] == points[2]


def test_boundary_is_told(hepatitis):
    text = " ".join(str(hepatitis.summary()).split())
    assert "converged on the boundary: the correlation of Intercept and log_days by infant" in text
    assert "SE(Var.) is left out on the boundary" in text
    table = hepatitis.summary().tables["random_effects"]
    assert np.isnan(table["std_error"][:3]).all()
    assert table["std_error"].iloc[-1] == pytest.approx(hepatitis.theta_se["var(Residual)"])


def test_missing_rows_and_dropped_columns_are_told():
    data = lf.datasets.sleepstudy()
    data.loc[[3, 5], "Days"] = np.nan
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm("Reaction ~ Days + I(2 * Days) + (1 | Subject)", data)
    text = str(fit.summary())
    assert "178 (2 dropped)" in text
    assert "2 rows dropped for missing values in Days (2)" in text
    assert "other columns determine them: I(2 * Days)" in text


@pytest.mark.parametrize("name", ["sleep", "hepatitis", "wide"])
def test_fits_88_columns(name, request):
    fit = request.getfixturevalue(name)
    for text in (str(fit.summary()), repr(fit.varcorr)):
        assert max(map(len, text.splitlines())) <= 88
        assert text.isascii()
        assert not any(line != line.rstrip() for line in text.splitlines())


def test_wide_tables_keep_every_name_and_number(wide):
    text = str(wide.summary())
    for name in (*wide.x_names, *wide.z_names, wide.group_name):
        assert name in text
    assert "Correlations by" in text
    assert f"{wide.varcorr.corr.iloc[9, 8]:.3f}" in text
    small = row_of(text, "x12")  # its standard error is 1e-10, the others' 0.1
    assert small[1] == pytest.approx(wide.bse["x12"], rel=1e-3)
    assert row_of(text, "x3 ")[1] == pytest.approx(wide.bse["x3"], rel=1e-3)


def test_array_fit_names_its_columns():
    d = lf.datasets.sleepstudy()
    X = np.column_stack([np.ones(180), d["Days"]])
    fit = lf.fit(d["Reaction"], X, d["Subject"], x_names=["one", "Days"], group_name="who")
    assert "y ~ one + Days + (1 | who)   [arrays]" in str(fit.summary())


def test_structures_are_named():
    fit = lf.lmm("Reaction ~ Days + (Days || Subject)", lf.datasets.sleepstudy())
    text = str(fit.summary())
    assert "Covariance structure of Intercept, Days by Subject: diagonal." in text
    assert "Corr." not in text


def test_standard_errors_of_structured_variances():
    """The identity's one variance has one standard error; the delta method must find it."""
    fit = lf.lmm("Reaction ~ Days + identity(Days | Subject)", lf.datasets.sleepstudy())
    table = fit.summary().tables["random_effects"]
    expected = fit.theta_se.iloc[0]
    assert table["std_error"].iloc[:2].to_numpy() == pytest.approx([expected, expected])
    assert table["std_error"].iloc[2] == 0.0  # the covariance is zero by definition


def test_tables(sleep):
    tables = sleep.summary().tables
    assert set(tables) == {"model", "random_effects", "variance_parameters", "fixed_effects"}
    pd.testing.assert_frame_equal(tables["fixed_effects"], sleep.tidy())
    assert tables["variance_parameters"]["estimate"].to_dict() == sleep.theta.to_dict()
    assert tables["variance_parameters"]["std_error"].to_dict() == sleep.theta_se.to_dict()
    assert tables["model"]["value"]["llf"] == sleep.llf
    random = tables["random_effects"]
    cov = random[random["var2"] == "Days"].iloc[0]
    assert cov["std_error"] == pytest.approx(sleep.theta_se["cov(Intercept,Days|Subject)"])


def test_html_parses_and_holds_the_numbers(sleep):
    parser = parse(sleep.summary()._repr_html_())
    assert parser.tables == 3
    assert SLEEP in parser.cells
    assert f"{sleep.llf:.4f}" in parser.cells
    assert "10.467" in parser.cells and "654.94" in parser.cells
    assert parse(sleep._repr_html_()).cells == parser.cells
    parse(sleep.varcorr._repr_html_())


def test_html_is_escaped():
    data = lf.datasets.sleepstudy().rename(columns={"Days": "<b>&Days"})
    fit = lf.lmm("Reaction ~ `<b>&Days` + (1 | Subject)", data)
    html = fit.summary()._repr_html_()
    assert "<b>&Days" not in html
    assert "<b>&Days" in parse(html).cells


def test_html_of_many_effects(wide):
    parser = parse(wide.summary()._repr_html_())
    assert parser.tables == 4  # the correlations apart


def test_pickled_fit(sleep, hepatitis):
    for fit in (sleep, hepatitis):
        again = pickle.loads(pickle.dumps(fit))
        assert str(again.summary()) == str(fit.summary())


def test_without_standard_errors_of_variances():
    fit = lf.lmm(SLEEP, lf.datasets.sleepstudy())
    fit._engine = fit._design = fit._clusters = None
    summary = fit.summary()
    assert "SE(Var.)" not in str(summary)
    assert "need the data" in str(summary)
    assert np.isnan(summary.tables["variance_parameters"]["std_error"]).all()
    parse(summary._repr_html_())


def test_does_not_touch_the_random_effects():
    m = 100_000
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(m), 3)
    y = rng.normal(size=m)[g] + rng.normal(size=3 * m)
    fit = lf.fit(y, np.ones((3 * m, 1)), g)
    start = time.perf_counter()
    text = str(fit.summary())
    assert time.perf_counter() - start < 1.0
    assert "_effects" not in vars(fit)
    assert "100,000 (group)" in text


def test_varcorr_of_one_term(sleep):
    vc = sleep.varcorr
    pd.testing.assert_frame_equal(vc.cov, sleep.cov_re)
    assert vc.sd["Days"] == pytest.approx(np.sqrt(sleep.cov_re.loc["Days", "Days"]))
    assert vc.corr.loc["Days", "Intercept"] == pytest.approx(0.0656, abs=1e-4)
    assert len(vc) == 1
    assert vc.sigma == sleep.sigma and vc.scale == sleep.scale
    assert list(vc.to_frame()["group"]) == ["Subject"] * 3 + ["Residual"]


def test_varcorr_of_several_terms():
    fit = lf.lmm("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", lf.datasets.sleepstudy())
    vc = fit.varcorr
    assert len(vc) == 2 and [one.names for one in vc] == [["Intercept"], ["Days"]]
    pd.testing.assert_frame_equal(vc.cov, fit.cov_re)
    pd.testing.assert_frame_equal(vc["Subject"].cov, fit.cov_re)
    assert vc[1].sd["Days"] == vc[-1].sd["Days"] == vc.sd["Days"]
    with pytest.raises(KeyError, match="no random effects by 'Days': there are 'Subject'"):
        vc["Days"]
    with pytest.raises(IndexError):
        vc[2]


def test_varcorr_of_a_zero_variance():
    fit = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff2())
    assert fit.varcorr.sd["Intercept"] == 0.0
    assert np.isnan(fit.varcorr.corr.to_numpy()).all()
    assert "Batch     Intercept      0.00     0.000" in repr(fit.varcorr)


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([251.405, 6.825], ["251.405", "6.825"]),
        ([0.0, 13.81], ["0.00", "13.81"]),
        ([0.0], ["0.000"]),
        ([1e-9, 1.0], ["1.000e-09", "1.000"]),
        ([123456.0, 2e6], ["123456", "2000000"]),
        ([1e12], ["1.000e+12"]),
        ([float("nan"), 1.0], ["", "1.000"]),
    ],
)
def test_numbers(values, written):
    places = decimal_places(values)
    assert [write_number(v, places) for v in values] == written


def test_p_values():
    assert [write_p(p) for p in (0.5, 1e-9, 0.0, 0.00005, float("nan"))] == [
        "0.5000",
        "<0.0001",
        "<0.0001",
        "0.0001",
        "",
    ]


def test_long_labels_stand_on_their_own_line():
    lines = text_table(["", "n"], [["x" * 100, "1"], ["y", "2"]], n_labels=1)
    assert lines[1] == shorten("x" * 100, 88)
    assert lines[2].split() == ["1"] and lines[3].split() == ["y", "2"]
    assert max(map(len, lines)) <= 88
