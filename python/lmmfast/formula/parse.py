"""Read a mixed-model formula: fixed part and bar terms, nothing evaluated yet.

The notation is lme4's: ``y ~ x + (1 + t | g)``, ``||`` for uncorrelated effects, and lme4 2's
``diag(t | g)``, ``cs(t | g)``, ``us(t | g)``, ``identity(t | g)`` for other covariance structures.
Groups are columns, combinations ``a:b``, or nested ``a/b``, which is short for ``a`` and ``a:b``.
The fixed part and the left sides of bars are formulaic's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmmfast.errors import FormulaError, UnsupportedModelError
from lmmfast.formula.language import response_expression
from lmmfast.formula.materialise import Token, parse_terms, tokenize

STRUCTURES = ("us", "diag", "identity", "cs")
# Names of covariance structures in glmmTMB and lme4 that are well defined, but not here yet.
_KNOWN_ELSEWHERE = frozenset(
    "ar1 hetar1 ou toep homtoep homcs homdiag exp gau mat rr propto equalto".split()
)
_WRAPPED = re.compile(r"([A-Za-z_]\w*)\((.*)\)\Z", re.DOTALL)
_FACTOR = re.compile(r"(?:as\.)?factor\(\s*([A-Za-z_.][\w.]*|`[^`]+`)\s*\)")
_HOM = {"TRUE": True, "True": True, "T": True, "FALSE": False, "False": False, "F": False}


@dataclass(frozen=True)
class BarTerm:
    """One random-effects term, such as ``(1 + t | a:b)``."""

    lhs: str  # "1 + t"
    group: tuple[str, ...]  # ("a", "b"): the columns whose combinations are the groups
    structure: str  # one of STRUCTURES
    hom: bool | None  # equal variances? None: not said
    text: str  # as written

    @property
    def group_name(self) -> str:
        """``"a:b"``."""
        return ":".join(self.group)


@dataclass(frozen=True)
class ParsedFormula:
    """The parts of a formula."""

    response: str
    fixed: str  # "1" when there is nothing but bar terms
    terms: tuple[BarTerm, ...]
    text: str = ""  # the whole as written
    clusters: tuple[str, ...] = ()  # columns whose combinations are the clusters without terms
    response_term: str = ""  # the response for formulaic: a name, or arithmetic in braces
    context: Mapping[str, Any] = field(default_factory=dict)  # the user's functions and values

    @property
    def factors(self) -> tuple[tuple[str, ...], ...]:
        """Grouping factors, each the columns whose combinations are its levels."""
        groups = dict.fromkeys(term.group for term in self.terms)
        return tuple(groups) if groups else (self.clusters,)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """``("a", "a:b")``."""
        return tuple(":".join(group) for group in self.factors)

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Columns that the grouping factors are made of."""
        return tuple(dict.fromkeys(name for group in self.factors for name in group))

    @property
    def group_name(self) -> str:
        """``"a:b"``; of several factors ``"a, a:b"``."""
        return ", ".join(self.factor_names)


def parse_formula(
    text: str,
    groups: Any = None,
    residual: bool = False,
    context: Mapping[str, Any] | None = None,
) -> ParsedFormula:
    """Split a formula into response, fixed part and random-effects terms.

    Parameters
    ----------
    text : str
        Such as ``"y ~ x + (1 + t | g)"``.
    groups : str or sequence of str, optional
        Columns whose combinations are the clusters; needed without random effects.
    residual : bool
        Whether the residuals have a structure, so that no random effects are needed.
    context : mapping, optional
        Functions and values that the formula uses beside the columns.

    Raises
    ------
    FormulaError
        The formula cannot be read; the message quotes the piece at fault.
    UnsupportedModelError
        A covariance structure that does not exist here.
    """
    if not isinstance(text, str):
        raise FormulaError(f"a formula is a string, not {type(text).__name__}")
    if context is not None and not isinstance(context, Mapping):
        raise FormulaError("context= maps names to functions or values, such as {'f': f}")
    tokens = tokenize(text)
    tilde = _find_tilde(text, tokens)
    response = text[: tokens[tilde].start].strip()
    if not response:
        raise FormulaError(f"{text!r} has no response: write it to the left of '~'")
    spans = _bar_spans(text, tokens, tilde)
    response_term = _read_response(response)
    terms: list[BarTerm] = []
    cuts = []
    for first, last in spans:
        terms += _read_terms(text[tokens[first].start : tokens[last].end], terms)
        cuts.append(_cut(text, tokens, tilde, first, last))
    clusters = _read_clusters(groups)
    if not terms and not residual:
        raise FormulaError(
            f"{text!r} has no random-effects term such as (1 | group): lmmfast fits linear mixed "
            "models; for a model without random effects use ordinary least squares, or give "
            "groups= and the structure of the residuals, residual="
        )
    if not terms and not clusters:
        raise FormulaError(
            f"{text!r} has no random-effects term: give the clusters within which residuals are "
            "correlated, such as groups='id'"
        )
    _check_clusters(terms, clusters)
    _check_columns(terms)

    fixed = _without(text, tokens[tilde].start + 1, cuts)
    parse_terms(expand_dot(fixed, ["_"]))
    return ParsedFormula(
        response, fixed, tuple(terms), text, clusters, response_term, dict(context or {})
    )


def _read_clusters(groups: Any) -> tuple[str, ...]:
    """``"id"``, ``"site:id"`` or a list of names."""
    if groups is None:
        return ()
    names = groups.split(":") if isinstance(groups, str) else groups
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise FormulaError(
            "groups= names a column of the data, or several as 'site:id': compute anything else as "
            "a column first"
        )
    return tuple(name.strip() for name in names)


def expand_dot(fixed: str, names: Sequence[str]) -> str:
    """Replace the ``.`` of a formula (all other columns) by the sum of `names`."""
    total = "(" + (" + ".join(f"`{name}`" for name in names) or "1") + ")"
    for token in reversed(tokenize(fixed)):
        if _is_dot(fixed, token):
            fixed = fixed[: token.start] + total + fixed[token.end :]
    return fixed


def has_dot(fixed: str) -> bool:
    """Tell whether the fixed part uses ``.``."""
    return any(_is_dot(fixed, token) for token in tokenize(fixed))


def _is_dot(text: str, token: Token) -> bool:
    """Tell ``.`` from a quoted column of that name."""
    return token.text == "." and text[token.start] == "." and token.kind in ("value", "name")


def _find_tilde(text: str, tokens: list[Token]) -> int:
    """Index of the token that begins with the only ``~`` (``~ -1`` is one token: ``~-``)."""
    found = [k for k, t in enumerate(tokens) if t.kind == "operator" and "~" in t.text]
    if not found:
        raise FormulaError(f"{text!r} has no response: write it as 'response ~ terms'")
    if len(found) > 1 or not re.fullmatch(r"~[^~]*", tokens[found[0]].text):
        raise FormulaError(f"{text!r} needs exactly one '~', between response and terms")
    return found[0]


def _read_response(response: str) -> str:
    """Return the response as one term: its arithmetic is that of numbers, not of terms."""
    term = response_expression(response, tokenize(response))
    if len(parse_terms(term, intercept=False)) != 1:
        raise FormulaError(f"the response {response!r} must be one variable or expression")
    return term


def _bar_spans(text: str, tokens: list[Token], tilde: int) -> list[tuple[int, int]]:
    """First and last token of each bar term: a parenthesis, or one call such as ``diag(t|g)``."""
    spans = []
    opened: list[int] = []
    bars: list[int] = []  # depths of the bars in the open outermost parenthesis
    for k, token in enumerate(tokens):
        if token.kind == "context" and token.text in "([":
            opened.append(k)
        elif token.kind == "context":
            if not opened:
                raise FormulaError(f"{text!r} closes a parenthesis that was not opened")
            first = opened.pop()
            if not opened and bars:
                piece = text[tokens[first].start : token.end]
                if max(bars) > 1 or tokens[first].text != "(" or first < tilde:
                    raise FormulaError(
                        f"{piece!r}: write each random-effects term on its own to the right of "
                        "'~', joined by '+', such as y ~ x + (1 | g)"
                    )
                spans.append((first, k))
                bars = []
        elif token.kind == "operator" and "|" in token.text:
            if not opened:
                raise FormulaError(
                    f"'|' outside parentheses in {text!r}: write random-effects terms in "
                    "parentheses, such as (1 + t | g)"
                )
            bars.append(len(opened))
        elif token.kind == "python" and _is_wrapped_bar(token.text):
            if opened:
                raise FormulaError(f"{token.text!r} must not stand inside other parentheses")
            spans.append((k, k))
    if opened:
        piece = text[tokens[opened[0]].start :]
        raise FormulaError(f"a parenthesis is not closed: {piece!r}")
    return spans


def _is_wrapped_bar(text: str) -> bool:
    """Tell ``diag(t | g)`` and alike from calls with a Python ``|`` in them."""
    found = _WRAPPED.match(text)
    if found is None or found.group(1) not in _KNOWN_ELSEWHERE.union(STRUCTURES):
        return False
    return bool(_top_level_bars(tokenize(found.group(2))))


def _top_level_bars(tokens: list[Token]) -> list[Token]:
    depth, bars = 0, []
    for token in tokens:
        if token.kind == "context":
            depth += 1 if token.text in "([" else -1
        elif depth == 0 and token.kind == "operator" and "|" in token.text:
            bars.append(token)
    return bars


def _cut(text: str, tokens: list[Token], tilde: int, first: int, last: int) -> tuple[int, int]:
    """Range of the text to take out with a bar term: the ``+`` before it goes too."""
    piece = text[tokens[first].start : tokens[last].end]
    before = tokens[first - 1]
    sign = before.text[1:] if first - 1 == tilde else before.text
    after = tokens[last + 1] if last + 1 < len(tokens) else None
    joined = before.kind == "operator" and sign in (("", "+") if first - 1 == tilde else ("+",))
    if not joined or (after and not (after.kind == "operator" and after.text[0] in "+-")):
        raise FormulaError(
            f"the random-effects term {piece!r} must be added with '+': it cannot be subtracted, "
            "multiplied or written without an operator"
        )
    start = before.start + 1 if first - 1 == tilde else before.start
    return start, tokens[last].end


def _without(text: str, start: int, cuts: list[tuple[int, int]]) -> str:
    pieces = []
    for a, b in cuts:
        pieces.append(text[start:a].rstrip())
        start = b
    pieces.append(text[start:])
    fixed = "".join(pieces).strip()
    while fixed.startswith("+"):
        fixed = fixed[1:].lstrip()
    if fixed.startswith("-"):
        fixed = "1 " + fixed
    return fixed or "1"


def _check_clusters(terms: list[BarTerm], clusters: tuple[str, ...]) -> None:
    """Residuals are correlated within the levels of a grouping factor: the innermost one."""
    if terms and clusters and all(set(clusters) != set(term.group) for term in terms):
        names = ", ".join(dict.fromkeys(repr(term.group_name) for term in terms))
        raise UnsupportedModelError(
            f"groups={':'.join(clusters)!r}, but the random effects are by {names}: residuals are "
            "correlated within the groups of the random effects; leave groups= out"
        )


def _read_terms(text: str, before: list[BarTerm]) -> list[BarTerm]:
    """Read ``(1 + t | g)``, ``diag(1 + t | g, hom = TRUE)``; ``(1 | a/b)`` are two terms."""
    wrapped = _WRAPPED.match(text)
    name, inner = (wrapped.group(1), wrapped.group(2)) if wrapped else (None, text[1:-1])
    if name is not None and name not in STRUCTURES:
        raise UnsupportedModelError(
            f"{text!r}: the covariance structure {name!r} is not supported yet; choose one of "
            + ", ".join(STRUCTURES)
        )
    inner, hom = _split_hom(inner, text, name)
    tokens = tokenize(inner)
    bars = _top_level_bars(tokens)
    if len(bars) != 1 or bars[0].text not in ("|", "||"):
        raise FormulaError(f"{text!r} needs one '|' between its effects and its group")
    bar = bars[0]
    if bar.text == "||" and name is not None:
        raise FormulaError(f"{text!r}: '||' already means diag(); write one or the other")
    lhs = inner[: bar.start].strip()
    if not lhs:
        raise FormulaError(f"{text!r} has no effects before '|': write (1 | g) for an intercept")
    groups = _read_groups([t for t in tokens if t.start >= bar.end], text)
    structure = name or ("diag" if bar.text == "||" else "us")
    known = {frozenset(term.group): term.group for term in before}
    return [
        BarTerm(lhs, known.get(frozenset(group), group), structure, hom, text) for group in groups
    ]


def _split_hom(inner: str, text: str, name: str | None) -> tuple[str, bool | None]:
    """Take ``, hom = TRUE`` off the end of a wrapped term."""
    tokens = tokenize(inner)
    commas = [k for k, t in enumerate(tokens) if t.kind == "operator" and t.text == ","]
    if not commas:
        return inner, None
    argument = tokens[commas[0] + 1 :]
    words = [t.text for t in argument]
    if len(words) != 3 or words[:2] != ["hom", "="] or words[2] not in _HOM:
        raise FormulaError(f"{text!r}: after the group only hom=TRUE or hom=FALSE can follow")
    if name not in ("diag", "cs"):
        raise FormulaError(f"{text!r}: hom= belongs to diag() and cs() only")
    return inner[: tokens[commas[0]].start], _HOM[words[2]]


def _read_groups(tokens: list[Token], text: str) -> list[tuple[str, ...]]:
    """Read ``a``, ``a:b``, or ``a/b/c``, which is short for ``a``, ``a:b`` and ``a:b:c``."""
    if not tokens:
        raise FormulaError(f"{text!r} has no group after '|'")
    tokens = [_group_of_factor(t) for t in tokens]
    names, joins = tokens[0::2], tokens[1::2]
    plain = all(t.kind == "name" for t in names) and all(t.text in (":", "/") for t in joins)
    if not plain or len(names) != len(joins) + 1:
        raise FormulaError(
            f"the group of {text!r} must be a column name or a:b, or a/b for groups within groups; "
            "write further grouping factors as terms of their own, such as (1 | a) + (1 | b), and "
            "compute anything else as a column first"
        )
    columns = [t.text for t in names]
    if len(set(columns)) < len(columns):
        raise FormulaError(f"the group of {text!r} names a column twice")
    ends = [k for k, join in enumerate(joins, 1) if join.text == "/"]
    return [tuple(columns[:end]) for end in [*ends, len(columns)]]


def _group_of_factor(token: Token) -> Token:
    """``factor(g)`` is g: groups are categories anyway."""
    found = _FACTOR.fullmatch(token.text) if token.kind == "python" else None
    return token if found is None else replace(token, kind="name", text=found.group(1).strip("`"))


def _check_columns(terms: list[BarTerm]) -> None:
    """Each effect of a factor stands in one term only, and each term has an effect."""
    seen: dict[tuple[tuple[str, ...], str], BarTerm] = {}
    for term in terms:
        effects = [str(effect) for effect in parse_terms(term.lhs)]
        if not effects:
            raise FormulaError(f"{term.text!r} has no random effects left: remove the term")
        for effect in effects:
            if (term.group, effect) in seen:
                what = "intercept" if effect == "1" else effect
                advice = " (write (0 + t | g) to leave an intercept out)" if effect == "1" else ""
                raise FormulaError(
                    f"{seen[term.group, effect].text!r} and {term.text!r} both have the effect "
                    f"{what!r} by {term.group_name!r}: the two {what} variances cannot be told "
                    f"apart{advice}"
                )
            seen[term.group, effect] = term
