"""What a factor of a formula, such as ``log(x)`` or ``bs(t, df=4)``, needs to be evaluated.

Rows are evaluated in chunks, so it matters whether a value depends on its own row only. That is
decided by looking at the expression: what is not known to be row by row is evaluated on all rows
at once.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmfast.errors import FormulaError
from lmmfast.formula.language import FUNCTIONS
from lmmfast.formula.materialise import function_names, is_lookup, is_python, transform_names

ROWWISE, LEARNED, WHOLE = 0, 1, 2  # in the order of what they ask for

_ROWWISE_CALLS = frozenset(
    "log log2 log10 exp exp2 I Q abs Treatment Poly Sum Helmert Diff".split()
) | frozenset(FUNCTIONS)
# Their state (knots, means, levels) is learnt from all rows, then applied to any rows.
_LEARNING_CALLS = frozenset("bs cr cs cc poly center scale standardize C".split())
# Those of them that subtract a number and divide by another.
_AFFINE_CALLS = frozenset("center scale standardize".split())
_ROWWISE_NUMPY = frozenset("where clip nan_to_num round".split())
_TRANSPARENT = (
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.List,
    ast.Tuple,
    ast.Dict,
    ast.keyword,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
    ast.expr_context,
    ast.Constant,
    ast.Name,
)


@dataclass(frozen=True)
class FactorUse:
    """What evaluating a factor takes.

    Attributes
    ----------
    columns : frozenset of str
        Names that must be columns of the data.
    scope : int
        `ROWWISE`, `LEARNED` (a state is learnt from all rows first) or `WHOLE` (must be evaluated
        on all rows at once, such as ``x - x.mean()``).
    levels_of : str or None
        The column whose levels the factor codes, for ``C(column, ...)`` without ``levels=``.
    """

    columns: frozenset[str]
    scope: int = ROWWISE
    levels_of: str | None = None


def analyse_factor(
    factor: Any, names: Collection[str], context: Mapping[str, Any] | None = None
) -> FactorUse:
    """Find the columns and the scope of a factor.

    Parameters
    ----------
    factor : formulaic.parser.types.Factor
    names : collection of str
        Columns of the data: they hide formulaic's own names, such as a column ``np``.
    context : mapping, optional
        Functions and values of the user's.

    Raises
    ------
    FormulaError
        The expression is not valid Python, or calls a function that nobody has defined.
    """
    if is_lookup(factor):
        return FactorUse(frozenset({factor.expr}))
    if not is_python(factor):
        return FactorUse(frozenset())  # a number
    code, aliases = _without_backticks(factor.expr)
    try:
        tree = ast.parse(code, mode="eval").body
    except SyntaxError as error:
        raise FormulaError(f"cannot read the expression {factor.expr!r}: {error.msg}") from None
    known = frozenset(context or ())
    _check_functions(tree, factor.expr, known.union(names))
    columns = {aliases.get(name, name) for name in _free_names(tree, names, known)}
    first = tree.args[0] if isinstance(tree, ast.Call) and tree.args else None
    levels_of = None
    if _called(tree) == "C" and isinstance(first, ast.Name) and not _has_levels(tree):
        levels_of = aliases.get(first.id, first.id)
    return FactorUse(frozenset(columns), _scope(tree), levels_of)


def calls_unknown(expr: str, known: Collection[str]) -> bool:
    """Tell whether an expression may do more than arithmetic, transforms and NumPy's functions.

    Parameters
    ----------
    expr : str
    known : collection of str
        Functions of the user's that are trusted.

    Raises
    ------
    SyntaxError
        The expression is not valid Python.
    """
    code, _ = _without_backticks(expr)
    return _scope(ast.parse(code, mode="eval").body, frozenset(known)) == WHOLE


def is_affine(expr: str, context: Collection[str]) -> bool:
    """Tell whether what an expression learns are means and deviations of row-by-row values alone.

    Parameters
    ----------
    expr : str
        As formulaic has it.
    context : collection of str
        Names of the user's, which hide formulaic's.
    """
    code, _ = _without_backticks(expr)
    tree = ast.parse(code, mode="eval").body
    if _scope(tree, _AFFINE_CALLS) != ROWWISE or not _AFFINE_CALLS.isdisjoint(context):
        return False
    calls = [node for node in ast.walk(tree) if _called(node) in _AFFINE_CALLS]
    return all(_learns_from_rows(call) for call in calls if isinstance(call, ast.Call))


def _learns_from_rows(call: ast.Call) -> bool:
    """Whether the only things that a call of ``scale`` or ``center`` learns are its own numbers."""
    others: list[tuple[str | None, ast.expr]] = [(None, value) for value in call.args[1:]]
    others += [(keyword.arg, keyword.value) for keyword in call.keywords]
    switches = all(
        isinstance(value, ast.Constant) and (isinstance(value.value, bool) or name == "ddof")
        for name, value in others
    )
    return bool(call.args) and switches and _scope(call.args[0]) == ROWWISE


def _without_backticks(expr: str) -> tuple[str, dict[str, str]]:
    aliases: dict[str, str] = {}

    def alias(found: re.Match[str]) -> str:
        name = f"_backticked_{len(aliases)}"
        aliases[name] = found.group(1)
        return name

    return re.sub(r"`([^`]+)`", alias, expr), aliases


def _check_functions(tree: ast.AST, expr: str, defined: Collection[str]) -> None:
    """Name a function that cannot be called, before formulaic fails to find it."""
    for node in ast.walk(tree):
        name = _called(node)
        if name is None or name in defined or name in function_names() or hasattr(builtins, name):
            continue
        if name == "offset":
            raise FormulaError("offset(...) in a formula is not supported: use offset=")
        numpy = f", write np.{name}(...)" if hasattr(np, name) else ""
        raise FormulaError(
            f"{expr!r} calls {name}(), which formulas do not have: pass your function as "
            f"context={{{name!r}: {name}}}{numpy} or compute the column first"
        )


def _free_names(tree: ast.AST, names: Collection[str], context: Collection[str]) -> set[str]:
    """Names that must come from the data; what is only called is a function."""
    functions, bound, quoted = set(), set(), set()
    for node in ast.walk(tree):
        called = _called(node)
        if isinstance(node, ast.Call) and called:
            functions.add(id(node.func))
            if called == "Q" and node.args and isinstance(node.args[0], ast.Constant):
                quoted.add(str(node.args[0].value))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("np", "contr"):
                functions.add(id(node.value))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        if isinstance(node, ast.arg):
            bound.add(node.arg)
    found = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and id(node) not in functions and node.id not in bound
    }
    known = transform_names().union(dir(builtins), context)
    return {name for name in found if name in names or name not in known} | quoted


def _called(node: ast.AST) -> str | None:
    """Name of the function in a call such as ``f(x)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id
    return None


def _has_levels(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and any(k.arg == "levels" for k in node.keywords)


def _scope(node: ast.AST, known: frozenset[str] = frozenset()) -> int:
    """Scope of an expression: that of its most demanding piece.

    Calls of ``known`` functions count as going row by row.
    """

    def scopes(pieces: Iterable[ast.AST]) -> int:
        return max((_scope(piece, known) for piece in pieces), default=ROWWISE)

    if isinstance(node, ast.Call):
        own = ROWWISE if _called(node) in known else _call_scope(node)
        return max(own, scopes([*node.args, *node.keywords]))
    if isinstance(node, ast.Attribute):
        base = node.value.id if isinstance(node.value, ast.Name) else None
        constant = base == "np" and isinstance(getattr(np, node.attr, None), float)
        return ROWWISE if base == "contr" or constant else WHOLE
    if isinstance(node, ast.In | ast.NotIn | ast.MatMult) or not isinstance(node, _TRANSPARENT):
        return WHOLE
    return scopes(ast.iter_child_nodes(node))


def _call_scope(node: ast.Call) -> int:
    called = _called(node)
    if called in _ROWWISE_CALLS:
        return ROWWISE
    if called in _LEARNING_CALLS:
        return LEARNED
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        base, attribute = node.func.value.id, node.func.attr
        if base == "contr":
            return ROWWISE
        known = attribute in _ROWWISE_NUMPY or isinstance(getattr(np, attribute, None), np.ufunc)
        if base == "np" and known:
            return ROWWISE
    return WHOLE
