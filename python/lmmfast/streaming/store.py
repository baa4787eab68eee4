"""Packed clusters as they come: in memory, and from a limit on in a scratch file."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.engines.moments import Evaluated, MomentsEngine
from lmmfast.engines.totals import Totals, unflatten
from lmmfast.packing.compress import CompressedClusters, aligned_zeros

#: Blocks that are evaluated at a time: 65,536 clusters.
PIECE = 8192
FILE = "clusters"


class ScratchFolder:
    """A folder that goes with the last that holds it.

    Parameters
    ----------
    parent : str or None
        Default: the system's folder for temporary files.
    """

    def __init__(self, parent: str | None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="lmmfast-", dir=parent))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class BlockStore:
    """Blocks of eight clusters, added part by part.

    Parameters
    ----------
    n_fields : int
    limit : int
        Bytes from which on they go to a file.
    scratch : str or None
        Folder of that file.
    """

    def __init__(self, n_fields: int, limit: int, scratch: str | None) -> None:
        self._shape = n_fields, core.lanes
        self._limit, self._scratch = limit, scratch
        self._parts: list[Array] = []
        self._last: Array | None = None  # the block that later clusters may join
        self._n = 0
        self.folder: ScratchFolder | None = None
        self._file: Any = None

    def add(self, blocks: Array, joins: bool) -> None:
        """Add blocks, which it keeps; the first joins the last one so far or not."""
        if not joins:
            self._flush()
        else:
            assert self._last is not None
            blocks[0] += self._last
        self._last = blocks[-1].copy()
        self._put(blocks[:-1])

    @property
    def last(self) -> Array:
        """The last block so far, which may be changed."""
        assert self._last is not None
        return self._last

    def _flush(self) -> None:
        if self._last is not None:
            self._put(self._last[None])
            self._last = None

    def _put(self, blocks: Array) -> None:
        self._n += len(blocks)
        if self._file is not None:
            self._file.write(np.ascontiguousarray(blocks))
            return
        self._parts.append(blocks)
        if self._n * int(np.prod(self._shape)) * 8 > self._limit:
            self._spill()

    def _spill(self) -> None:
        self.folder = ScratchFolder(self._scratch)
        self._file = (self.folder.path / FILE).open("wb")
        for part in self._parts:
            self._file.write(part)
        self._parts = []

    def blocks(self) -> Array:
        """All blocks, (n_blocks, n_fields, 8), in memory or mapped."""
        self._flush()
        if self._file is not None:
            path = self._file.name
            self._file.close()
            return np.memmap(path, np.float64, "r", shape=(self._n, *self._shape))
        made, first = aligned_zeros((self._n, *self._shape)), 0
        while self._parts:
            part = self._parts.pop(0)
            made[first : first + len(part)] = part
            first += len(part)
        return made

    def close(self) -> None:
        """Let go of the file, where another pass is needed."""
        if self._file is not None:
            self._file.close()
        if self.folder is not None:
            self.folder.remove()


class SpilledEngine(MomentsEngine):
    """Packed clusters in a file, read at each evaluation.

    Parameters
    ----------
    clusters : CompressedClusters
        Its ``blocks`` are mapped.
    folder : ScratchFolder
        Goes with the engine.
    """

    compiled = False

    def __init__(self, clusters: CompressedClusters, n_threads: int, folder: ScratchFolder) -> None:
        super().__init__(clusters, n_threads, share=False)
        self._folder = folder

    @property
    def evaluated(self) -> Evaluated:
        """The mapped clusters."""
        return Evaluated(self.clusters.blocks, z_in_x=self.clusters.z_in_x)

    def _pieces(self) -> Any:
        """Blocks in memory, and the number of clusters in them."""
        c = self.clusters
        with (self._folder.path / FILE).open("rb", buffering=0) as file:
            for first in range(0, len(c.blocks), PIECE):
                n = min(PIECE, len(c.blocks) - first)
                blocks: Any = aligned_zeros((n, *c.blocks.shape[1:]))
                file.readinto(memoryview(blocks).cast("B"))
                yield blocks, min(n * core.lanes, c.m - first * core.lanes)

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda', piece by piece."""
        c, perp = self.clusters, self.clusters.perp
        flat: Array = np.zeros(1)
        for blocks, _ in self._pieces():
            flat = flat + core.evaluate(
                blocks, c.q, c.p1, Lambda, perp, with_kr, self.n_threads, None, c.z_in_x
            )
            perp = np.zeros_like(perp)  # it counts once
        return unflatten(flat, c.q, c.p1, with_kr)

    def effects_pieces(self, Lambda: Array, root: Array, c: Array) -> Any:
        """Predictions of root u piece by piece."""
        d = self.clusters
        for blocks, m in self._pieces():
            yield np.asarray(
                core.random_effects(blocks, d.q, d.p1, m, Lambda, root, c, self.n_threads)
            )

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> Array:
        """Predictions of root u (m, q)."""
        return np.concatenate(list(self.effects_pieces(Lambda, root, c)))
