"""Labels of text in two arrays, as model files hold them: read one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TextLabels:
    """Texts one after the other in UTF-8; behaves as an array of text (m,) that is made on request.

    Parameters
    ----------
    utf8 : ndarray of uint8
    ends : ndarray of integers (m,)
        Where each text ends in ``utf8``.
    ascends : bool
        Whether the texts stand in their order.
    """

    dtype = np.dtype(object)

    def __init__(self, utf8: NDArray[np.uint8], ends: NDArray[Any], ascends: bool) -> None:
        self.utf8, self.ends, self.ascends = utf8, ends, ascends
        self._bytes, self._ends = utf8.data, ends.data

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextLabels:
        """Put texts one after the other."""
        joined = "".join(texts)
        utf8 = joined.encode()
        if len(utf8) == len(joined):
            lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        else:
            lengths = np.fromiter(
                (len(text.encode()) for text in texts), dtype=np.int64, count=len(texts)
            )
        ends = np.cumsum(lengths)
        if len(utf8) < 1 << 32:
            ends = ends.astype(np.uint32)
        array = np.array(texts, dtype=object)
        ascends = bool((array[:-1] < array[1:]).all())
        return cls(np.frombuffer(utf8, dtype=np.uint8), ends, ascends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, which: Any) -> Any:
        if not isinstance(which, int | np.integer):
            return np.asarray(self)[which]
        k = range(len(self))[which]
        return str(self._bytes[self._ends[k - 1] if k else 0 : self._ends[k]], "utf-8")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole, ends = bytes(self.utf8), [0, *self.ends.tolist()]
        text = whole.decode()
        if len(text) == len(whole):  # ASCII: letters are bytes
            texts = [text[a:b] for a, b in pairwise(ends)]
        else:
            texts = [whole[a:b].decode() for a, b in pairwise(ends)]
        made = np.empty(len(texts), dtype=object)
        made[:] = texts
        return made if dtype is None else made.astype(dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return TextLabels, (np.array(self.utf8), np.array(self.ends), self.ascends)
