"""Attributes of results that are the reader's own: writing into them changes nothing else."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class HandedOut(Generic[T]):
    """An attribute that each reader gets a copy of.

    Parameters
    ----------
    deep : bool
        Copy what is in it, too.
    """

    def __init__(self, deep: bool = False) -> None:
        self._copy = copy.deepcopy if deep else copy.copy

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    @overload
    def __get__(self, result: None, owner: type) -> HandedOut[T]: ...
    @overload
    def __get__(self, result: object, owner: type) -> T: ...
    def __get__(self, result: object | None, owner: type) -> HandedOut[T] | T:
        if result is None:
            return self
        value: T = self._copy(result.__dict__[self._name])
        return value

    def __set__(self, result: Any, value: T) -> None:
        result.__dict__[self._name] = value
