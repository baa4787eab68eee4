"""States of pickled results, with a version: what another version has pickled is refused."""

from __future__ import annotations

from typing import Any

from lmmfast.errors import DataError

#: Raised when what is pickled of a result changes.
STATE_VERSION = 1
_KEY = "_state_version"


def with_version(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state with its version."""
    return {**state, _KEY: STATE_VERSION}


def checked(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state without its version.

    Raises
    ------
    DataError
        It is that of another version.
    """
    version = state.get(_KEY, 0)
    if version != STATE_VERSION:
        raise DataError(
            f"pickled by another version of lmmfast (state {version}, here {STATE_VERSION}): "
            "unpickle it with that version and use fit.save(path), whose files all later versions "
            "read"
        )
    return {name: value for name, value in state.items() if name != _KEY}
