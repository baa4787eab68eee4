"""Checks of arguments that are one of a few words."""

from __future__ import annotations

from collections.abc import Sequence


def check_choice(option: str, value: object, choices: Sequence[str]) -> None:
    """Raise a ValueError that lists the choices, unless ``value`` is one of them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{option}={value!r}: choose one of {', '.join(map(repr, choices))}")
