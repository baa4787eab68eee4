"""The rows that a model is fitted to: an expression of columns, or a mask."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.columns import read_column
from lmmfast.data.tables import Table, check_same_index, row_index, single_column, suggest
from lmmfast.errors import DataError, FormulaError

if TYPE_CHECKING:
    import pandas as pd

_MASK = "a mask of True and False, one for each row of the data"
_WANTED = "it must be true or false for each row, such as \"age > 40 & arm == 'A'\"; or pass a mask"

#: Text and names between quotes, and what R and Python write differently.
_IN_PYTHON = {
    "&": " and ", "&&": " and ", "|": " or ", "||": " or ", "!": " not ", "!=": "!=",
    "%in%": " in ", "is.na": "is_na", "@": "",
}  # fmt: skip
_TOKENS = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|&&?|\|\|?|!=?|%in%|\bis\.na\b|@")
_KNOWN: dict[str, Any] = {
    "TRUE": True, "FALSE": False, "abs": abs,
    "c": lambda *values: list(values),
    "is_na": lambda column: column.isna(),
}  # fmt: skip


def select_rows(
    subset: Any, table: Table, context: Mapping[str, Any] | None = None
) -> NDArray[np.intp] | None:
    """Find the rows of a subset.

    Parameters
    ----------
    subset : str, array of bool (n,) or None
        A condition on columns (``"age > 40 & arm == 'A'"``), or a mask. As in R, rows for which it
        is missing do not belong to the subset.
    table : Table
    context : mapping, optional
        Functions and values that a condition uses beside the columns.

    Returns
    -------
    (k,) ndarray of int or None
        Positions of the rows, ascending; None: all.

    Raises
    ------
    FormulaError
        An expression that cannot be evaluated.
    DataError
        A mask of another length or type; no row is left.
    """
    if subset is None:
        return None
    if isinstance(subset, str):
        mask, shown = _evaluated(subset, table, context or {}), _shown(subset)
    else:
        mask, shown = _given(subset, table), "the mask subset="
    if not mask.any():
        raise DataError(f"{shown} selects none of the {table.n_rows} rows")
    return None if mask.all() else np.flatnonzero(mask)


def _shown(expression: str) -> str:
    """Return the beginning of what the user wrote."""
    return f"subset={expression if len(expression) <= 80 else expression[:77] + '...'!r}"


def _given(subset: Any, table: Table) -> NDArray[np.bool_]:
    check_same_index({"data": table.index, "subset": row_index(subset)})
    column = read_column("subset", single_column("subset", subset))
    if column.is_factor or column.values.dtype != np.bool_:
        raise DataError(
            f'subset must be an expression of columns such as "age > 40", or {_MASK}; for '
            "positions or labels select the rows of the data themselves"
        )
    return _checked(column.values, column.missing, table)


def _checked(
    values: NDArray[Any], missing: NDArray[np.bool_] | None, table: Table
) -> NDArray[np.bool_]:
    if len(values) != table.n_rows:
        raise DataError(f"subset has {len(values)} values, but the data have {table.n_rows} rows")
    return values if missing is None else values & ~missing


def _evaluated(expression: str, table: Table, context: Mapping[str, Any]) -> NDArray[np.bool_]:
    import pandas as pd

    try:
        tree, quoted = parse_condition(expression)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _cannot(expression, error) from None
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {*_KNOWN}
    columns = {}
    for name in sorted(used):
        column = quoted.get(name, name)
        if column in table.names:
            columns[name] = _nullable(table.fetch(column))
        elif name not in context:
            raise FormulaError(
                f"{_shown(expression)}: {column!r} is not a column of the data"
                f"{suggest(column, table.names)}"
            )
    scope = {"__builtins__": {}, **context, **_KNOWN, **columns}
    try:
        found = eval(compile(tree, "subset", "eval"), scope)
    except Exception as error:
        raise _cannot(expression, error) from None
    if not isinstance(found, pd.Series) or not pd.api.types.is_bool_dtype(found.dtype):
        raise FormulaError(f"{_shown(expression)} is not a condition: {_WANTED}")
    missing = np.array(found.isna())
    for own in columns.values():
        if not _knows_missing(own.dtype):
            missing |= np.asarray(own.isna())
    return _checked(found.fillna(False).to_numpy(dtype=bool), missing, table)


def _cannot(expression: str, error: BaseException) -> FormulaError:
    return FormulaError(f"{_shown(expression)} cannot be evaluated ({error}): {_WANTED}")


def parse_condition(expression: str) -> tuple[ast.Expression, dict[str, str]]:
    """Parse a condition in R's or Python's notation to an expression of pandas series.

    ``&`` and ``|`` bind less than comparisons, as in R.

    Returns
    -------
    tree : ast.Expression
    quoted : dict
        Identifiers in the tree to names between backquotes.

    Raises
    ------
    SyntaxError
    """
    quoted: dict[str, str] = {}

    def translated(match: re.Match[str]) -> str:
        token = match[0]
        if token[0] == "`":
            name = f"_quoted{len(quoted)}"
            quoted[name] = token[1:-1]
            return name
        return token if token[0] in "'\"" else _IN_PYTHON[token]

    source = _TOKENS.sub(translated, expression).strip()
    tree = ast.parse(source, mode="eval")
    return ast.fix_missing_locations(_Elementwise().visit(tree)), quoted


class _Elementwise(ast.NodeTransformer):
    """``and``, ``or``, ``not``, ``in`` and chains of comparisons, element by element."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        operator = ast.BitAnd() if isinstance(node.op, ast.And) else ast.BitOr()
        return reduce(lambda a, b: ast.BinOp(a, operator, b), node.values)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        return ast.UnaryOp(ast.Invert(), node.operand) if isinstance(node.op, ast.Not) else node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        pairs = [
            self._compare(a, operator, b)
            for a, operator, b in zip(sides[:-1], node.ops, sides[1:], strict=True)
        ]
        return reduce(lambda a, b: ast.BinOp(a, ast.BitAnd(), b), pairs)

    @staticmethod
    def _compare(a: ast.expr, operator: ast.cmpop, b: ast.expr) -> ast.expr:
        if not isinstance(operator, ast.In | ast.NotIn):
            return ast.Compare(a, [operator], [b])
        found: ast.expr = ast.Call(ast.Attribute(a, "isin", ast.Load()), [b], [])
        return found if isinstance(operator, ast.In) else ast.UnaryOp(ast.Invert(), found)


def _nullable(values: Any) -> pd.Series[Any]:
    """Return a column of which comparisons are missing where it is."""
    import pandas as pd

    if not isinstance(values, pd.Series):
        values = values.to_pandas() if hasattr(values, "to_pandas") else pd.Series(list(values))
    values = values.reset_index(drop=True)
    if isinstance(values.dtype, pd.CategoricalDtype) and not values.dtype.ordered:
        values = values.astype(values.cat.categories.dtype)
    values = values.convert_dtypes()
    # Only text that pandas keeps itself compares to what its numbers compare to.
    is_text = isinstance(values.dtype, pd.StringDtype)
    return values.astype(pd.StringDtype("python")) if is_text else values


def _knows_missing(dtype: Any) -> bool:
    """Whether comparisons with a missing value are missing, and not false."""
    import pandas as pd

    return isinstance(dtype, pd.api.extensions.ExtensionDtype) and dtype.na_value is pd.NA
