"""The benchmark command runs from end to end, on data so small that its figures mean nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="an sdist without benchmarks")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """One run of one workload at two sizes, the larger one with its stages."""
    folder = tmp_path_factory.mktemp("benchmarks")
    path = os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")]))
    command = "import run; run.STAGE_ROWS = 1000; run.main()"
    options = "--workload slope --clusters 60 240 --peers lmmfast --repeats 1"
    files = ["--json", folder / "all.json", "--markdown", folder / "page.md"]
    subprocess.run(
        [sys.executable, "-c", command, *options.split(), *files],
        env=os.environ | {"PYTHONPATH": path},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


def test_all_routes_reach_the_same_optimum(page):
    figures = json.loads((page / "all.json").read_text())["measurements"]
    assert [f["clusters"] for f in figures] == [60, 60, 240, 240]
    for one, other in zip(figures[::2], figures[1::2], strict=True):
        assert one["route"] == "arrays" and other["kind"] == "formula"
        assert one["loglik"] == pytest.approx(other["loglik"], abs=1e-6)
        assert one["theta"] == pytest.approx(other["theta"], rel=1e-4)


def test_stages_are_measured(page):
    (f,) = json.loads((page / "all.json").read_text())["stages"]
    assert "failed" not in f, f
    for stage in ("add", "pass", "arrays", "frame", "fit"):
        assert len(f[stage]) == len(f["threads"]) and min(f[stage]) > 0


def test_page_has_tables_and_a_picture(page):
    text = (page / "page.md").read_text()
    for heading in ("One pass and the speed of memory", "Packing and the formula path", "slope"):
        assert f"## {heading}" in text
    assert "| 240 | 1," in text
    assert "](images/benchmarks-slope.png)" in text
    picture = (page / "images" / "benchmarks-slope.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < 150_000


def test_profile_of_a_fit_adds_up(tmp_path):
    """The stages exist under the names that the script looks for, and the page shows them."""
    page = tmp_path / "page.md"
    page.write_text("<!-- begin: large -->\n\n<!-- end: large -->\n")
    command = [sys.executable, BENCHMARKS / "profile_fit.py", "--page", page]
    options = "--clusters 1000 --repeats 1 --small-repeats 2".split()
    out = subprocess.run(
        [*command, *options], check=True, capture_output=True, text=True, timeout=300
    ).stdout
    assert out.count("from arrays: ") == out.count("from a data frame and a formula: ") == 2
    for stage in ("design", "packing", "search: all passes", "formulaic makes the columns"):
        assert f"\n    {stage}" in out
    times = [float(line.split()[-2]) for line in out.splitlines() if line.endswith("%")]
    whole = [float(line.split()[-2]) for line in out.splitlines() if line.startswith("from ")]
    assert sum(times) == pytest.approx(sum(whole), abs=0.1 * len(times))
    assert "        packing " in page.read_text()


def test_residual_structures_are_a_part_of_the_page_of_their_own(page):
    """All routes reach one optimum; the figures of the other workloads stay."""
    before = (page / "page.md").read_text()
    command = [sys.executable, BENCHMARKS / "run.py", "--markdown", page / "page.md"]
    options = "--workload unstructured long-series --clusters 40 80 --peers lmmfast --repeats 1"
    files = ["--json", page / "residual.json"]
    subprocess.run([*command, *options.split(), *files], check=True, timeout=300)
    figures = json.loads((page / "residual.json").read_text())["structured"]
    assert [f["rows"] // f["clusters"] for f in figures[4:]] == [40, 40, 80, 80]
    for one, other in zip(figures[::2], figures[1::2], strict=True):
        assert one["loglik"] == pytest.approx(other["loglik"], abs=1e-6)
    after = (page / "page.md").read_text()
    assert after.startswith(before[: before.index("<!-- begin: structured -->")])
    assert "### unstructured" in after and "rows a series, time grows" in after


def test_several_grouping_factors_are_a_part_of_the_page_of_their_own(page):
    """Nested labels as one array and as two columns of a formula reach one optimum."""
    before = (page / "page.md").read_text()
    command = [sys.executable, BENCHMARKS / "run.py", "--markdown", page / "page.md"]
    options = "--workload nested-small crossed-small --clusters 8 --peers lmmfast --repeats 1"
    files = ["--json", page / "levels.json"]
    subprocess.run([*command, *options.split(), *files], check=True, timeout=300)
    figures = json.loads((page / "levels.json").read_text())["levels"]
    assert [f["workload"] for f in figures] == ["nested-small"] * 2 + ["crossed-small"] * 2
    for one, other in zip(figures[::2], figures[1::2], strict=True):
        assert one["loglik"] == pytest.approx(other["loglik"], abs=1e-6)
    after = (page / "page.md").read_text()
    assert after.startswith(before[: before.index("<!-- begin: levels -->")])
    assert "### nested-small" in after and "| levels of user |" in after
