"""Where a piece of the data comes from, for messages."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """A piece of a file or of a stream.

    Attributes
    ----------
    name : str
        Of the file.
    piece : int
        Row group of the file, counted from 0.
    first_row : int
        Row of the piece that the batch begins with.
    """

    name: str
    piece: int
    first_row: int = 0

    def __str__(self) -> str:
        """Name file and row group."""
        return f"row group {self.piece} of {self.name}"

    def row(self, k: int) -> str:
        """Name the k-th row of the batch."""
        return f"row {self.first_row + k} (counting from 0) of {self}"
