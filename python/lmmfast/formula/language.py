"""From the notation of R to formulaic's: powers, functions, quoted names, and what is refused.

Between terms formulaic reads ``^`` as a power, as R does. Within calls and braces it hands the text
to Python, where ``^`` is another operation and ``TRUE`` no name: there the notation is translated.
What R means differently from formulaic is refused with the words to write instead.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.errors import FormulaError

if TYPE_CHECKING:
    from lmmfast.formula.materialise import Token

MAX_CHARACTERS = 200_000
MAX_NAME = 10_000  # characters
MAX_TERMS = 10_000
MAX_PRODUCTS = 1_000_000  # formed in multiplying out a power

_QUOTED = re.compile(r"""("[^"]*"|'[^']*'|`[^`]*`)""")
_WORDS = {"TRUE": "True", "FALSE": "False", "NULL": "None"}
_OPERATORS = (("%/%", "//"), ("%%", "%"), ("^", "**"))
_INSTEAD = {
    "ns": "natural cubic splines are cr(x, df=3, constraints='center')",
    "as.numeric": "compute the numbers as a column first",
    "as.integer": "compute the numbers as a column first",
    "as.character": "C(x) codes the values of a column as categories",
    "relevel": "choose the reference by C(x, Treatment('level'))",
    "interaction": "write a:b",
    "cbind": "fit several responses by lmmfast.fit_many",
}


def dummy(values: Any, level: Any) -> Any:
    """Return 1 where `values` are `level`, else 0 (lme4's ``dummy``)."""
    levels = values.cat.categories if hasattr(values, "cat") else np.unique(np.asarray(values))
    if level not in list(levels):
        raise ValueError(f"dummy(): there is no level {level!r}")
    return (values == level).astype(float)


def _extreme(of_two: np.ufunc) -> Callable[..., Any]:
    def of_several(first: Any, *others: Any) -> Any:
        for other in others:
            first = of_two(first, other)
        return first

    return of_several


#: Functions of R that formulaic does not have, or means otherwise (its own exp10(x) is x**10).
FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "exp10": lambda x: 10.0**x,
        "pmin": _extreme(np.minimum),
        "pmax": _extreme(np.maximum),
        "ceiling": np.ceil,
        "ifelse": np.where,
        "c": lambda *values: list(values),
        "dummy": dummy,
        **{
            name: getattr(np, name)
            for name in (
                "sqrt log1p expm1 sin cos tan sinh cosh tanh floor ceil trunc sign abs round"
            ).split()
        },
    }
)


def to_formulaic(text: str, tokens: list[Token]) -> str:
    """Translate the pieces of a formula that formulaic would read otherwise.

    Parameters
    ----------
    text : str
        Terms without bars.
    tokens : list of Token
        Those of the text.

    Raises
    ------
    FormulaError
        ``%in%``, or a function of R that has another name here.
    """
    for token in reversed(tokens):
        source = text[token.start : token.end]
        if token.kind == "python":
            new = python_expression(source)
        elif source[:1] == "`" and not re.search(r"[^\W\d]", token.text):
            new = f"Q({token.text!r})"  # formulaic takes `1` for a number and `~` for an operator
        elif token.kind == "operator" and re.search(r"%in%|\bin\b", token.text):
            raise FormulaError(
                f"{text!r}: R reads 'b %in% a' as a:b, other programs as a + a:b: write a:b or a/b"
            )
        else:
            continue
        text = text[: token.start] + new + text[token.end :]
    return text


def python_expression(text: str) -> str:
    """Translate an expression from R's notation to Python's; quoted pieces stay as they are.

    Raises
    ------
    FormulaError
        A function of R that has another name here.
    """
    pieces = _QUOTED.split(text)
    for k in range(0, len(pieces), 2):
        piece = pieces[k]
        for theirs, ours in _OPERATORS:
            piece = piece.replace(theirs, ours)
        piece = re.sub(r"\b(?:as\.)?factor\s*\(", "C(", piece)
        for name, instead in _INSTEAD.items():
            if re.search(rf"(?<![\w.]){re.escape(name)}\s*\(", piece):
                raise FormulaError(f"{text!r}: there is no {name}() here: {instead}")
        pieces[k] = re.sub(r"\b(TRUE|FALSE|NULL)\b", lambda found: _WORDS[found[1]], piece)
    return "".join(pieces)


def response_expression(text: str, tokens: list[Token]) -> str:
    """Return the left side of a formula as one term of formulaic: a name, or arithmetic in braces.

    Raises
    ------
    FormulaError
        The left side is no arithmetic of columns.
    """
    if not tokens:
        raise FormulaError("the response is empty")
    for token in tokens:
        if token.kind in ("name", "value") and token.text == "." and text[token.start] == ".":
            raise FormulaError("the response cannot be '.': name the column to explain")
    if len(tokens) == 1 and tokens[0].kind == "name":
        return text
    expression = python_expression(text.strip())
    code = re.sub(r"`[^`]*`", "_", expression)
    if code.startswith("{") and code.endswith("}"):
        expression, code = expression[1:-1], code[1:-1]
    try:
        tree = ast.parse(code.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise FormulaError(
            f"the response {text!r} must be one column or arithmetic such as 'y - base' or "
            "'log(y)': compute anything else as a column first"
        ) from None
    if not any(isinstance(node, ast.Name) for node in ast.walk(tree)):
        raise FormulaError(f"the response {text!r} has no column of the data in it")
    if isinstance(tree, ast.Tuple | ast.List):
        raise FormulaError(
            f"the response {text!r} must be one variable or expression: fit several responses by "
            "lmmfast.fit_many"
        )
    return "{" + expression.strip() + "}"


def check_size(text: str) -> None:
    """Refuse formulas that nobody has written by hand.

    Raises
    ------
    FormulaError
        More than `MAX_CHARACTERS` characters.
    """
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(
            f"a formula of {len(text):,} characters: at most {MAX_CHARACTERS:,} are read; pass "
            "arrays to lmmfast.fit"
        )


def check_n_terms(text: str, tree: Any) -> None:
    """Refuse formulas that multiply out to very many terms, before they do.

    Parameters
    ----------
    text : str
    tree : formulaic.parser.types.ASTNode or other
        What formulaic's parser makes of the text.

    Raises
    ------
    FormulaError
        More than `MAX_TERMS` terms.
    """
    n_terms = _most_terms(tree)
    if n_terms > MAX_TERMS:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise FormulaError(
            f"{shown!r} multiplies out to more than {MAX_TERMS:,} terms: write a smaller power or "
            "product, or pass arrays to lmmfast.fit"
        )


def _most_terms(tree: Any) -> int:
    """Upper bound of the number of terms, at most a little above `MAX_TERMS`; without recursion."""
    bounds: list[int] = []
    todo: list[tuple[Any, bool]] = [(tree, False)]
    while todo:
        node, children_known = todo.pop()
        arguments = getattr(node, "args", None)
        if arguments is None or not hasattr(node, "operator"):
            bounds.append(1)
        elif not children_known:
            todo.append((node, True))
            todo += [(child, False) for child in reversed(list(arguments))]
        else:
            n = len(arguments)
            children = [bounds.pop() for _ in range(n)][::-1]
            bounds.append(min(_combined(str(node.operator), children, node), 10 * MAX_TERMS))
    return bounds[-1] if bounds else 0


def _combined(operator: str, n_terms: list[int], node: Any) -> int:
    """Most terms that an operator makes of sums of so many terms."""
    symbol = operator.strip()
    if len(n_terms) < 2:
        return n_terms[0] if n_terms else 0
    first, second = n_terms[0], n_terms[-1]
    if symbol in ("**", "^"):
        digits = str(node.args[-1])
        power = int(digits) if digits.isdecimal() and len(digits) < 10 else MAX_PRODUCTS
        # A product that repeats a factor is no new term, but formulaic forms all of them.
        if power > 1 and power * math.log(max(first, 2)) > math.log(MAX_PRODUCTS):
            return 10 * MAX_TERMS
        return sum(math.comb(first, k) for k in range(1, power + 1))
    if symbol == ":":
        return first * second
    if symbol == "*":
        return first * second + first + second
    return sum(n_terms)
