"""`fit.table` in each format, and what maketables asks of a fit."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest

import lmmfast as lf

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def fit():
    return lf.lmm(SLEEP, lf.datasets.sleepstudy())


def test_markdown(fit):
    lines = fit.table().splitlines()
    assert lines[0] == "|  | Estimate | SE | 95 % interval | p |"
    row = next(line for line in lines if line.startswith("| Days |"))
    assert row == "| Days | 10.47 | 1.55 | [7.21, 13.73] | <0.0001 |"
    assert any(line.startswith("| var(Intercept\\|Subject) |") for line in lines)
    for line in lines[: lines.index("")]:
        assert len(re.findall(r"(?<!\\)\|", line)) == 6
    assert "18 groups of Subject" in lines[-1] and "REML, 180 rows" in lines[-1]
    assert "90 % interval" in fit.table(alpha=0.1)


def test_latex_is_escaped(fit):
    text = fit.table("latex")
    assert r"95 \% interval" in text and r"var(Intercept\textbar{}Subject)" in text
    assert text.count(r"\begin{tabular}{lrrrr}") == text.count(r"\end{tabular}") == 1
    data = lf.datasets.sleepstudy().rename(columns={"Days": "days_100"})
    other = lf.lmm("Reaction ~ days_100 + (1 | Subject)", data).table("latex")
    assert r"days\_100" in other


def test_html_is_well_formed(fit):
    data = lf.datasets.sleepstudy().assign(arm=lambda d: np.where(d["Days"] > 4, "a<b", "c&d"))
    text = lf.lmm("Reaction ~ arm + (1 | Subject)", data).table("html")
    assert "arm[T.c&amp;d]" in text and "a<b" not in text
    open_tags = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Parser().feed(text)
    assert not open_tags


def test_variances_on_the_boundary_have_no_interval():
    data = lf.datasets.sleepstudy()
    data["y"] = np.random.default_rng(1).normal(size=len(data))
    fit = lf.lmm("y ~ Days + (1 | Subject)", data)
    assert "nan" not in fit.table() and "[, ]" not in fit.table()


def test_wrong_format(fit):
    with pytest.raises(ValueError, match="format='pdf'"):
        fit.table("pdf")


def test_great_tables(fit):
    pytest.importorskip("great_tables")
    html = fit.table("great_tables").as_raw_html()
    assert "Variance parameters" in html and "[7.21, 13.73]" in html


@pytest.mark.filterwarnings("ignore")
def test_maketables(fit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        maketables = pytest.importorskip("maketables")
    from lmmfast.maketables import entry

    table = maketables.ETable([entry(fit)]).df.astype(str)
    assert "Reaction" in str(table.columns.tolist())
    flat = " ".join(table.to_numpy().ravel())
    assert "10.467" in flat and "18" in flat
