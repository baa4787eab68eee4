"""The examples of README.md and docs/: they run, and they print what the page says they print."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pytest

from lmmfast.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
# Libraries that pages use, and that have no wheels for some platforms.
EXTRAS = {"production.md": ("pyarrow", "sklearn", "onnx", "onnxruntime")}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
_EQUATION = re.compile(r"\beq\. (\d+\.\d+)(?:-(\d+\.\d+))?")


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    line: int
    adjoins: bool  # nothing but white space between it and the block before


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found, end = [], 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        adjoins = bool(found) and not text[end : match.start()].strip()
        found.append(Block(match.group(1), match.group(2), line, adjoins))
        end = match.end()
    return found


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)


def run_python(block: Block, page: Path, namespace: dict) -> str:
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, namespace)
    return out.getvalue()


def run_console(text: str) -> str:
    """Output of the ``$ lmmfast …`` commands of a block, each command repeated before it."""
    shown = []
    for line in re.findall(r"^\$ lmmfast .*$", text, re.MULTILINE):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            main(shlex.split(line)[2:])
        shown.append(f"{line}\n{out.getvalue()}")
    return "".join(shown)


def without_spaces_at_ends(text: str) -> str:
    """Editors strip these from a page; pandas pads with them."""
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def without_rounding(text: str) -> str:
    """How far the search went beyond convergence is a matter of rounding: take it out."""
    return re.sub(r"Newton decrement \S+, \d+\s+evaluations?", "Newton decrement …", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples(page):
    """One namespace a page. A ``text`` block is the output of the ``python`` block before it."""
    for library in EXTRAS.get(page.name, ()):
        pytest.importorskip(library)
    namespace: dict = {"__name__": "__main__"}
    printed = None
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.kind == "text":
            assert block.adjoins and printed is not None, f"{where}: output of what?"
            assert block.text == without_spaces_at_ends(printed), where
            printed = None
            continue
        assert not printed, f"{where}: the example before it prints what the page does not show"
        printed = None
        if block.kind == "python":
            printed = run_python(block, page, namespace)
        elif block.kind == "console":
            assert without_rounding(block.text) == without_rounding(run_console(block.text)), where
        else:
            assert block.kind == "bash", f"{where}: {block.kind!r} is not checked"
    assert not printed, f"{page.name}: the last example prints what the page does not show"


def calls_in_tables(page: Path) -> list[str]:
    """The code in the columns headed ``lmmfast`` of the tables of a page."""
    found, column = [], None
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            column = None
        elif column is None:
            column = cells.index("lmmfast") if "lmmfast" in cells else -1
        elif column >= 0:
            found += re.findall(r"`([^`]+)`", cells[column].replace("\\|", "|"))
    return found


@pytest.mark.parametrize("page", sorted((DOCS / "coming_from").glob("*.md")), ids=lambda p: p.stem)
def test_calls_in_tables_run(page):
    """After the examples of the page, in their namespace."""
    namespace: dict = {"__name__": "__main__"}
    for block in blocks(page):
        if block.kind == "python":
            run_python(block, page, namespace)
    calls = calls_in_tables(page)
    assert len(calls) >= 5
    for call in calls:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(call, f"{page.name}: {call}", "exec"), namespace)


def test_readme_begins_with_the_two_commands():
    """The checks of a fresh clone read them from there."""
    first = next(block for block in blocks(PAGES[0]) if block.kind == "bash")
    assert first.text.splitlines() == [
        "python -m pip install '.[plots]' && lmmfast demo",
        "python -m pip install '.[test]' && python -m pytest",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for match in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = (page.parent / match.group(1)).resolve() if match.group(1) else page
        assert target.exists(), match.group(0)
        if match.group(2):
            assert match.group(2)[1:] in anchors(target), match.group(0)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_equations_that_the_code_cites_exist():
    algorithm = (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8")
    numbers = re.findall(r"^    .*\((\d+\.\d+)\)$", algorithm, re.MULTILINE)
    assert len(numbers) == len(set(numbers))
    sources = [*(ROOT / "python").rglob("*.py"), *(ROOT / "cpp").rglob("*.hpp")]
    cited = [
        number
        for source in sources
        for match in _EQUATION.finditer(source.read_text(encoding="utf-8"))
        for number in match.groups()
        if number
    ]
    assert len(cited) > 10
    assert set(cited) <= set(numbers)


def test_the_table_of_structures_lists_each_of_them():
    from lmmfast.residual import kinds

    page = (ROOT / "docs" / "structures.md").read_text(encoding="utf-8")
    first = page[page.index("| lmmfast | covariance") :].split("\n\n")[0]
    named = {row.split("(")[0].removeprefix("| `") for row in first.splitlines()[2:]}
    assert set(kinds.__all__) <= named | {"CustomCorrelation"}


def test_the_reference_has_every_public_name():
    import lmmfast

    pages = (DOCS / "reference").glob("*.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    assert set(lmmfast.__all__) <= shown


def test_the_site_has_every_page():
    """And no other: the navigation of mkdocs.yml, without a parser of YAML."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": (\S+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES[1:])
