"""Calls of residual structures: columns come first, everything else is named.

Python itself refuses what is given by position and should be named, but does not say what to write.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any

import numpy as np


def written(name: str, columns: Sequence[Any], **options: Any) -> str:
    """``"AR1('visit', by='arm')"``; arrays are only named, options that are off left out."""
    shown = [_shown(column) for column in columns]
    shown += [
        f"{key}={_shown(value)}"
        for key, value in options.items()
        if value is not None and value is not False
    ]
    return f"{name}({', '.join(shown)})"


def _shown(value: Any) -> str:
    if callable(value):
        return str(getattr(value, "__name__", "<function>"))
    plain = isinstance(value, str | Number) or value is None
    plain |= isinstance(value, list) and all(isinstance(part, str | Number) for part in value)
    return repr(value) if plain else "<array>"


def is_column(value: Any) -> bool:
    """Whether a value may be a column: a name or an array, not an option."""
    return value is not None and not isinstance(value, Number | bool | np.bool_)


def columns_first(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap an ``__init__`` whose positional parameters are columns.

    Raises
    ------
    TypeError
        By the wrapped function, for an option where a column belongs or a column where an option
        belongs; it says what to write.
    """
    parameters = list(inspect.signature(init).parameters.values())[1:]
    columns = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters)

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **named: Any) -> None:
        most = len(args) if any_number else len(columns)
        good = [value for value in args[:most] if is_column(value)]
        misplaced = [value for value in args[:most] if not is_column(value)] + list(args[most:])
        name = type(self).__name__
        if misplaced:
            raise TypeError(
                f"{written(name, args, **named)}: only {_columns(columns, any_number)} by "
                f"position; {_advice(name, good, misplaced, options, named)}"
            )
        _check_options(name, named)
        init(self, *args, **named)

    return checked


def _columns(names: Sequence[str], any_number: bool) -> str:
    if any_number:
        return "columns"
    return f"the column {', '.join(names)!r}" if names else "no columns"


def _advice(
    name: str,
    columns: Sequence[Any],
    misplaced: Sequence[Any],
    options: Sequence[str],
    named: dict[str, Any],
) -> str:
    """What to write instead of a call."""
    if not options:
        return f"write {written(name, columns)}"
    meant = dict(named)
    for value in misplaced:
        option = _option_for(value, options)
        if option is None or option in meant:
            return f"columns are names or arrays, options are {', '.join(options)}"
        meant[option] = value
    ordered = {option: meant[option] for option in options if option in meant}
    return f"write {written(name, columns, **ordered)}"


def _option_for(value: Any, options: Sequence[str]) -> str | None:
    """Name the option that a value by position was meant for."""
    if is_column(value):
        wanted = ["by"]
    elif isinstance(value, bool | np.bool_):
        wanted = ["nugget"]
    else:
        wanted = [] if value is None else ["bands", "nu"]
    return next((option for option in wanted if option in options), None)


def _check_options(name: str, named: dict[str, Any]) -> None:
    nugget, by = named.get("nugget", False), named.get("by")
    if not isinstance(nugget, bool | np.bool_):
        meant = f"; levels with parameters of their own are by={nugget!r}" * is_column(nugget)
        raise TypeError(f"{name}: nugget={nugget!r} must be True or False{meant}")
    if by is not None and not is_column(by):
        raise TypeError(f"{name}: by={by!r} must be a column: its name, or its values")
