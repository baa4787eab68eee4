"""The law of a response in what is kept of it: Q_i'y of each cluster, and sums beside the Z_i.

With W^1/2 Z_i = Q_i R_i the Q_i'y are normal with covariance matrix sigma2 (I + R_i Ddot R_i'),
independent of each other and of what lies beside; there y has the sums A'(I - QQ')A, of which those
of X are known and those of y are a normal vector and a chi-squared number (docs/algorithm.md,
section 9). Everything is about the mean X beta and in units of sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.packing.compress import CompressedClusters

#: Passes within which putting clusters of one design together is to pay: those of many replicates.
PASSES = 300
#: Of so few numbers Q'y replicates are searched side by side, of more one after the other.
FEW_NUMBERS = 1 << 13
#: Directions of X beside the Z_i with less than this part of its sum of squares are rounding.
NOTHING = 1e-12


@dataclass(frozen=True)
class MomentsLaw:
    """What replicates of a response share.

    Attributes
    ----------
    blocks : ndarray (n_blocks, n_fields, 8)
        As in `CompressedClusters`; m clusters, the last ones of zeros.
    design : ndarray (m, q (q + 1) / 2 + q p) or None
        R_i and Q_i'X of fewer clusters with the same likelihood, or of few; None: of `blocks`.
    counts : ndarray (m,) or None
        For how many clusters of its R_i each one stands; None: for itself.
    roots : ndarray (q, q, m)
        Lower triangular, of the covariance matrices of the Q_i'y.
    degrees : ndarray (m,)
        Of how many clusters of its design the Q_i'y have become a triangle that the row is of; 0:
        of none.
    places : ndarray of int (m,)
        Of such a row its place in the triangle.
    perp : ndarray (p, p)
        Sum of X'(I - QQ')X.
    perp_root : ndarray (p, rank)
    df : int
        Rows less the ranks of the Z_i and of `perp`.
    z_in_x : list of int
        As in `CompressedClusters`, among the columns of X that are kept where there is a `design`.
    """

    blocks: Array
    design: Array | None
    counts: Array | None
    roots: Array
    degrees: Array
    places: NDArray[np.intp]
    perp: Array
    perp_root: Array
    df: int
    z_in_x: list[int]

    @property
    def q(self) -> int:
        """Number of random effects of a cluster."""
        return len(self.roots)

    @property
    def m(self) -> int:
        """Number of clusters that are drawn."""
        return self.roots.shape[2]

    @cached_property
    def _triangles(self) -> NDArray[np.intp]:
        """Rows that stand for several clusters."""
        return np.flatnonzero(self.degrees)

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw one response: Q_i'y (q, m), and the sums of [X y]'(I - QQ')[X y] (p + 1, p + 1)."""
        p = len(self.perp)
        z: Array = rng.standard_normal((self.perp_root.shape[1],))
        rest = float(rng.chisquare(self.df)) if self.df > 0 else 0.0
        perp = np.empty((p + 1, p + 1))
        perp[:p, :p] = self.perp
        perp[:p, p] = perp[p, :p] = self.perp_root @ z
        perp[p, p] = z @ z + rest
        projected = rng.standard_normal((self.q, self.m))
        self._draw_triangles(rng, projected)
        for b in reversed(range(self.q)):
            projected[b] *= self.roots[b, b]
            for a in range(b):
                projected[b] += self.roots[b, a] * projected[a]
        return projected, perp

    def _draw_triangles(self, rng: np.random.Generator, projected: Array) -> None:
        """Bartlett's decomposition: triangles of normal rows have chi on their diagonals."""
        rows = self._triangles
        if not len(rows):
            return
        place = self.places[rows]
        projected[:, rows] *= np.arange(self.q)[:, None] > place
        projected[place, rows] = np.sqrt(rng.chisquare(self.degrees[rows] - place))


def moments_law(
    clusters: CompressedClusters, keep: NDArray[np.intp], Lambda: Array, n_threads: int
) -> MomentsLaw:
    """Find the law of responses at Ddot = Lambda Lambda'.

    Parameters
    ----------
    keep : ndarray of int
        Columns of X in the model.
    """
    c = clusters
    shared = core.share(c.blocks, c.q, c.p1, c.m, n_threads, PASSES)
    blocks, counts, _ = (c.blocks, None, 0) if shared is None else shared
    n_R = c.q * (c.q + 1) // 2
    design, z_in_x = None, c.z_in_x
    degrees, places = np.empty(0), np.empty(0, dtype=np.intp)
    if counts is not None or len(blocks) * core.lanes * c.q <= FEW_NUMBERS:
        rows = np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(-1, blocks.shape[1])
        columns = np.arange(n_R, n_R + c.q * c.p1).reshape(c.q, c.p1)[:, keep].ravel()
        design = np.ascontiguousarray(rows[:, [*range(n_R), *columns]])
        kept = {int(j): k for k, j in enumerate(keep)}
        z_in_x = [kept[j] for j in c.z_in_x] if counts is None and kept.keys() >= {*z_in_x} else []
    if design is not None and counts is not None:
        parts = _with_triangles(design, counts.ravel(), n_R, c.q, c.q * c.p1)
        design, counts, degrees, places = parts
    R = blocks[:, :n_R].transpose(1, 0, 2).reshape(n_R, -1) if design is None else design.T[:n_R]
    perp = c.perp[np.ix_(keep, keep)]
    root = _root(perp, np.diag(c.gram)[keep])
    return MomentsLaw(
        blocks=blocks,
        design=design,
        counts=counts,
        roots=_roots(R, Lambda),
        degrees=degrees,
        places=places,
        perp=perp,
        perp_root=root,
        df=c.n_obs - c.rank_Z - root.shape[1],
        z_in_x=z_in_x,
    )


def _with_triangles(
    design: Array, counts: Array, n_R: int, q: int, most: int
) -> tuple[Array, Array, Array, NDArray[np.intp]]:
    """Add the rows that stand for clusters beyond the `most` of a design that have a row each.

    An orthogonal transformation of the clusters of a design leaves rows of Q'X in the first `most`
    of them; the Q'y of the others are reduced to a triangle.
    """
    first = np.flatnonzero(counts)
    beyond = counts[first] - most
    more = [np.arange(int(min(q, n))) for n in np.maximum(beyond, 0)]
    of = np.repeat(first, [len(rows) for rows in more])
    added = np.zeros((len(of), design.shape[1]))
    added[:, :n_R] = design[of, :n_R]
    n, k = len(design), len(of)
    degrees, places = np.zeros(n + k), np.zeros(n + k, dtype=np.intp)
    degrees[n:] = counts[of] - most
    if k:
        places[n:] = np.concatenate(more)
    return np.vstack([design, added]), np.append(counts, np.zeros(k)), degrees, places


def _roots(R: Array, Lambda: Array) -> Array:
    """Lower triangular roots (q, q, m) of I + R Lambda Lambda' R'; 0 where R has no rank.

    Parameters
    ----------
    R : ndarray (q (q + 1) / 2, m)
        Entries of the upper triangles, row by row.
    """
    q, m = len(Lambda), R.shape[1]
    at = {(int(a), int(b)): R[k] for k, (a, b) in enumerate(zip(*np.triu_indices(q), strict=True))}
    half = np.zeros((q, q, m))
    for (a, b), entry in at.items():
        for c in range(q):
            if Lambda[b, c]:
                half[a, c] += entry * Lambda[b, c]
    out = np.zeros((q, q, m))
    for b in range(q):  # Cholesky's decomposition, of all clusters at a time
        there = at[b, b] > 0
        pivot = there + (half[b] ** 2).sum(axis=0) - (out[b, :b] ** 2).sum(axis=0)
        out[b, b] = np.sqrt(np.maximum(pivot, 0.0))
        inverse = np.divide(1.0, out[b, b], out=np.zeros(m), where=there)
        for a in range(b + 1, q):
            rest = (half[a] * half[b]).sum(axis=0) - (out[a, :b] * out[b, :b]).sum(axis=0)
            out[a, b] = rest * inverse
    return out


def _root(perp: Array, sums: Array) -> Array:
    """Return C (p, rank) with perp = C C'; rounding is relative to `sums` of squares of X."""
    scale = np.sqrt(np.where(sums > 0, sums, 1.0))
    values, vectors = np.linalg.eigh(perp / np.outer(scale, scale))
    real = values > NOTHING
    return np.asarray(scale[:, None] * vectors[:, real] * np.sqrt(values[real]))
