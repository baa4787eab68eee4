"""Reading formulas: what is understood, and what each mistake is told."""

import pytest

from lmmfast.errors import FormulaError, UnsupportedModelError
from lmmfast.formula.parse import expand_dot, parse_formula


def bars(text):
    return [(t.lhs, t.group, t.structure, t.hom) for t in parse_formula(text).terms]


@pytest.mark.parametrize(
    ("text", "fixed", "terms"),
    [
        ("y ~ (1|g)", "1", [("1", ("g",), "us", None)]),
        ("y ~ x + (t | g)", "x", [("t", ("g",), "us", None)]),
        ("y~(0+t|g)+x", "x", [("0+t", ("g",), "us", None)]),
        ("y ~ x + (-1 + t | g)", "x", [("-1 + t", ("g",), "us", None)]),
        ("y ~ (1 + t || g) - 1", "1 - 1", [("1 + t", ("g",), "diag", None)]),
        ("y ~ 0 + x + (1|g)", "0 + x", [("1", ("g",), "us", None)]),
        ("y ~ -1 + x + (1|g)", "1 -1 + x", [("1", ("g",), "us", None)]),
        ("y ~ a*b + (1|g) + x^2", "a*b + x^2", [("1", ("g",), "us", None)]),
        ("y ~ (1|g) + (0 + t|g)", "1", [("1", ("g",), "us", None), ("0 + t", ("g",), "us", None)]),
        ("y ~ x + (1 | a:b)", "x", [("1", ("a", "b"), "us", None)]),
        ("y ~ `my x` + (1 | `my g`:k)", "`my x`", [("1", ("my g", "k"), "us", None)]),
        ("y ~ (1 | `a:b`)", "1", [("1", ("a:b",), "us", None)]),
        ("y ~ us(t|g)", "1", [("t", ("g",), "us", None)]),
        ("y ~ x + diag(1 + t | g)", "x", [("1 + t", ("g",), "diag", None)]),
        ("y ~ diag(t|g, hom=TRUE) + x", "x", [("t", ("g",), "diag", True)]),
        ("y ~ identity(t|g)", "1", [("t", ("g",), "identity", None)]),
        ("y ~ cs(t|g, hom = False)", "1", [("t", ("g",), "cs", False)]),
        ("y ~ cs(x, df=4) + cs(t|g)", "cs(x, df=4)", [("t", ("g",), "cs", None)]),
        ("y ~ {x|z} + (1|g)", "{x|z}", [("1", ("g",), "us", None)]),
        ("y ~ np.where(x>0, x|1, 0) + (1|g)", "np.where(x>0, x|1, 0)", [("1", ("g",), "us", None)]),
        ("y ~ (x + z) + (bs(t, df=4) | g)", "(x + z)", [("bs(t, df=4)", ("g",), "us", None)]),
    ],
)
def test_split(text, fixed, terms):
    assert parse_formula(text).fixed == fixed
    assert bars(text) == terms


def test_keeps_the_text_of_terms_and_the_response():
    parsed = parse_formula("log(y + 1) ~ x + diag(1 + t | a:b, hom=TRUE)")
    assert parsed.response == "log(y + 1)"
    assert parsed.terms[0].text == "diag(1 + t | a:b, hom=TRUE)"
    assert parsed.terms[0].group_name == "a:b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y ~ x", "no random-effects term"),
        ("", "no response"),
        ("x + (1|g)", "no response"),
        ("~ x + (1|g)", "no response"),
        ("y ~ x ~ z + (1|g)", "exactly one '~'"),
        ("y, z ~ (1|g)", "must be one variable or expression"),
        ("y ~ x | g", "outside parentheses"),
        ("y ~ x + (1 | g", r"not closed: '\(1 \| g'"),
        ("y ~ (1 | g))", "not opened"),
        ("y ~ x - (1|g)", r"'\(1\|g\)' must be added"),
        ("y ~ x * (1|g)", "must be added"),
        ("y ~ (1|g):x", "must be added"),
        ("y ~ (1|g) x", "must be added"),
        ("y ~ (x + (1|g))", "on its own"),
        ("(1|g) ~ x", "on its own"),
        ("y ~ (diag(t|g) + x)", "inside other parentheses"),
        ("y ~ (|g)", "no effects before"),
        ("y ~ (1|)", "no group"),
        ("y ~ (1|factor(g + 1))", "column name or a:b"),
        ("y ~ (1|1)", "column name or a:b"),
        ("y ~ (1|a b)", "column name or a:b"),
        ("y ~ (1|a*b)", "terms of their own"),
        ("y ~ (1|a+b)", "terms of their own"),
        ("y ~ (1|a:a)", "names a column twice"),
        ("y ~ (1|a/b) + (1|a)", "both have the effect 'intercept' by 'a'"),
        ("y ~ (0|g)", "no random effects left"),
        ("y ~ (a|b|c)", "needs one '|'"),
        ("y ~ diag(t||g)", "already means diag"),
        ("y ~ us(t|g, hom=TRUE)", "hom= belongs"),
        ("y ~ cs(t|g, rho=1)", "only hom=TRUE"),
        ("y ~ (1|g) + (t|g)", "two intercept variances cannot be told apart"),
        ("y ~ (0+t|g) + (0+t*s|g)", "both have the effect 't'"),
        ("y ~ my col + (1|g)", "my col"),
        ("y ~ x > 1 + (1|g)", "Unknown operator"),
        ("y ~ f('a + (1|g)", "Expected"),
        ("y ~ x + (1|g) +", r"cannot read 'x \+'"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(FormulaError, match=message):
        parse_formula(text)


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("y ~ (1|a/b)", ["a", "a:b"]),
        ("y ~ (1|a/b/c)", ["a", "a:b", "a:b:c"]),
        ("y ~ (1|a:b/c)", ["a:b", "a:b:c"]),
        ("y ~ (1|a) + (t|a:b)", ["a", "a:b"]),
        ("y ~ (1|a:b) + (0+t|b:a)", ["a:b"]),
        ("y ~ (1|b) + (1|a) + (0+t|b)", ["b", "a"]),
        ("y ~ diag(1+t|a/b) + (1|c)", ["a", "a:b", "c"]),
    ],
)
def test_grouping_factors(text, factors):
    parsed = parse_formula(text)
    assert list(parsed.factor_names) == factors
    assert {term.group_name for term in parsed.terms} == set(factors)
    assert parsed.group_name == ", ".join(factors)


def test_nested_groups_are_a_term_each():
    parsed = parse_formula("y ~ x + diag(1 + t | a/b)")
    assert [(t.lhs, t.group, t.structure) for t in parsed.terms] == [
        ("1 + t", ("a",), "diag"),
        ("1 + t", ("a", "b"), "diag"),
    ]
    assert parsed.group_columns == ("a", "b")


def test_structures_known_elsewhere_are_named():
    with pytest.raises(
        UnsupportedModelError, match=r"'ar1\(0 \+ t \| g\)'.*'ar1' is not supported"
    ):
        parse_formula("y ~ ar1(0 + t | g)")


def test_not_a_string():
    with pytest.raises(FormulaError, match="not int"):
        parse_formula(3)


def test_expand_dot():
    assert expand_dot(". - a.b", ["x", "my z"]) == "(`x` + `my z`) - a.b"
    assert expand_dot(". + log(.5 + x)", []) == "(1) + log(.5 + x)"
