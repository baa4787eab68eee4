"""Residual structures written as text, such as ``AR1('visit', by='arm') * VarPower()``."""

from __future__ import annotations

import ast
from typing import Any

from lmmfast.errors import DataError
from lmmfast.residual import kinds
from lmmfast.residual.structure import ResidualStructure


def structure_of_text(text: str) -> ResidualStructure:
    """Read a structure as it is written in Python; nothing else is run.

    Raises
    ------
    DataError
        It is not a product of calls of structures with plain values.
    """
    try:
        made = _value(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        raise DataError(f"residual {text!r}: cannot be read: {error.msg}") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"residual {text!r}: {error}") from None
    if not isinstance(made, ResidualStructure):
        raise DataError(f"residual {text!r}: is no structure; write it as AR1('visit')")
    return made


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _value(node.left) * _value(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name = node.func.id
        if name not in kinds.__all__ or name == "CustomCorrelation":
            raise DataError(
                f"residual structures are {', '.join(sorted(kinds.__all__))}, and no {name!r}"
            )
        named = {k.arg: _value(k.value) for k in node.keywords if k.arg is not None}
        return getattr(kinds, name)(*map(_value, node.args), **named)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise DataError(f"{ast.unparse(node)!r} is neither a structure nor a plain value") from None
