"""The grouping factors of models fitted to arrays: one array, or several with their Z."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lmmfast.data.columns import as_array
from lmmfast.data.tables import is_table, open_table
from lmmfast.errors import DataError


class FactorArrays(NamedTuple):
    """Grouping factors as the user gives them.

    Attributes
    ----------
    names : tuple of str (F,)
    groups : list (F,)
        Group of each row, an array (n,) each.
    Z : list (F,)
        Columns of each factor, or None for a random intercept.
    z_names : list (F,)
        Names of the columns of each factor, or None.
    several : bool
        Whether ``groups`` was a list, dict or table of arrays.
    named : bool
        Whether the names of the factors are the user's.
    """

    names: tuple[str, ...]
    groups: list[Any]
    Z: list[Any]
    z_names: list[Any]
    several: bool
    named: bool


def factor_arrays(groups: Any, group_name: Any, Z: Any = None, z_names: Any = None) -> FactorArrays:
    """Take ``groups`` apart: an array; or a list, dict or table of arrays, with a Z for each.

    Raises
    ------
    DataError
        Z, z_names or group_name do not have an entry for each factor.
    """
    given_names = [group_name] if isinstance(group_name, str) else group_name
    if not isinstance(given_names, list | tuple) or not all(
        isinstance(name, str) for name in given_names
    ):
        raise DataError(f"group_name={group_name!r} must be a name, or a list of names")
    found = _named(groups)
    if found is None:
        return FactorArrays(
            (str(group_name),), [groups], [Z], [z_names], False, group_name != "group"
        )
    names, arrays = found
    named = names is not None or not isinstance(group_name, str)
    if names is None:
        given = None if isinstance(group_name, str) else tuple(group_name)
        names = given or tuple(f"{group_name}{k + 1}" for k in range(len(arrays)))
    for what, values in (("group_name", names), ("Z", Z), ("z_names", z_names)):
        sized = isinstance(values, list | tuple) and len(values) == len(arrays)
        if values is not None and not sized:
            raise DataError(
                f"groups has {len(arrays)} grouping factors: {what} must be a list with an entry "
                "for each" + (", None for a random intercept" if what == "Z" else "")
            )
    if len(set(names)) < len(names):
        raise DataError("two grouping factors have the same name: give them distinct names")
    nothing = [None] * len(arrays)
    return FactorArrays(names, arrays, list(Z or nothing), list(z_names or nothing), True, named)


def legend(factors: FactorArrays) -> dict[str, str]:
    """What the names stand for that were made up, where the user's own are known or a place is.

    A group array may be a series with a name, or have a place in a list; so may columns of Z.
    """
    found: dict[str, str] = {}
    for k, (name, groups) in enumerate(zip(factors.names, factors.groups, strict=True)):
        own = _own_name(groups)
        if own is not None and own != name:
            found[name] = repr(own)
        elif factors.several and not factors.named:
            found[name] = f"groups[{k}]"
    for Z, names in zip(factors.Z, factors.z_names, strict=True):
        if Z is None or names is not None or is_table(Z):
            continue
        shape = np.shape(Z) if hasattr(Z, "shape") else as_array("Z", Z).shape
        n_columns = shape[1] if len(shape) == 2 else 1
        where = "its Z" if factors.several else "Z"
        found |= {f"z{j}": f"column {j} of {where}" for j in range(n_columns)}
    return found


def _own_name(groups: Any) -> str | None:
    """Name of a series, or of the only column of a table."""
    if is_table(groups):
        return str(open_table(groups).names[0])
    name = getattr(groups, "name", None)
    return name if isinstance(name, str) else None


def _named(groups: Any) -> tuple[tuple[str, ...] | None, list[Any]] | None:
    """Names, if there are any, and arrays of several factors; None: one array."""
    if isinstance(groups, Mapping) and groups:
        return tuple(str(name) for name in groups), list(groups.values())
    if is_table(groups):
        table = open_table(groups)
        if not table.names:
            raise DataError("groups has no columns that are named by text")
        if len(table.names) > 1:
            return tuple(table.names), [table.fetch(name) for name in table.names]
        return None
    if isinstance(groups, Sequence) and not isinstance(groups, str) and len(groups):
        if all(_is_array(one) for one in groups):
            return None, list(groups)
    return None


def _is_array(values: Any) -> bool:
    """Whether an entry of a list is an array of groups rather than the group of a row."""
    return not isinstance(values, str | bytes) and np.ndim(values) == 1
