"""Random-effects terms; those of one grouping factor together: D is block-diagonal over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array, vech_pairs
from lmmfast.covariance.choices import structure
from lmmfast.covariance.structures import RandomStructure, Unstructured
from lmmfast.errors import FormulaError
from lmmfast.residual.ends import End
from lmmfast.residual.log_determinant import LogDeterminant

#: Logarithms of standard deviations relative to the residual one, of D's that are drawn.
LOG_SDS = (-2.0, 1.5)


@dataclass(frozen=True)
class Term:
    """A random-effects term: the columns of Z that share one covariance matrix."""

    group: str  # "infant" or "a:b"
    names: tuple[str, ...]  # columns of Z: ("Intercept", "t")
    structure: RandomStructure


def terms_without(
    terms: Sequence[Term], columns: Sequence[int]
) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """Terms without some columns of Z, and these as ``name|group``; one column needs no CS."""
    left, dropped, first = [], [], 0
    for term in terms:
        names = [name for k, name in enumerate(term.names, first) if k not in columns]
        dropped += [f"{name}|{term.group}" for name in term.names if name not in names]
        first += len(term.names)
        alone = len(names) == 1 < len(term.names)
        shape: RandomStructure = Unstructured() if alone else term.structure
        left.append(Term(term.group, tuple(names), shape))
    return tuple(left), tuple(dropped)


def natural_names(terms: Sequence[Term]) -> list[str]:
    """Names of the natural parameters of D, those of one term after the other."""
    return [name for term in terms for name in term.structure.natural_names(term.names, term.group)]


def choose_structures(
    written: Sequence[tuple[str, str, bool | None]], D: Any
) -> list[RandomStructure]:
    """Find the covariance structure of each term.

    Parameters
    ----------
    written : sequence of (text, structure, hom)
        As the formula says.
    D : RandomStructure, sequence of them, or None
        The user's choice; replaces plain ``( | )`` terms only.
    """
    if D is None:
        return [structure(name, hom) for _, name, hom in written]
    chosen = list(D) if isinstance(D, list | tuple) else [D]
    for choice in chosen:
        if not isinstance(choice, RandomStructure):
            raise FormulaError(
                f"D={choice!r} is no covariance structure: pass lmmfast.D.diag(), .cs(), "
                ".identity() or .unstructured()"
            )
    if len(chosen) != len(written):
        raise FormulaError(
            f"D gives {len(chosen)} covariance structures for {len(written)} random-effects terms"
        )
    for text, name, _ in written:
        if name != "us":
            raise FormulaError(f"{text!r} names its covariance structure already: leave D= out")
    return chosen


@dataclass(frozen=True)
class BlockCovariance:
    """D(phi) of several terms: phi holds the root parameters of one term after the other.

    Parameters
    ----------
    structures : tuple of RandomStructure
    sizes : tuple of int
        Number of Z columns of each term; their sum is q.
    """

    structures: tuple[RandomStructure, ...]
    sizes: tuple[int, ...]

    @cached_property
    def q(self) -> int:
        """Number of random effects per cluster."""
        return sum(self.sizes)

    @cached_property
    def columns(self) -> list[slice]:
        """Columns of Z of each term."""
        ends = np.cumsum(self.sizes)
        return [slice(int(e) - q, int(e)) for e, q in zip(ends, self.sizes, strict=True)]

    @cached_property
    def params(self) -> list[slice]:
        """Parameters of each term."""
        counts = [s.n_params(q) for s, q in zip(self.structures, self.sizes, strict=True)]
        ends = np.cumsum(counts)
        return [slice(int(e) - n, int(e)) for e, n in zip(ends, counts, strict=True)]

    @cached_property
    def n_params(self) -> int:
        """Number of variance parameters besides the residual variance."""
        return self.params[-1].stop if self.params else 0

    @property
    def n_random(self) -> int:
        """Number of parameters of D."""
        return self.n_params

    @property
    def n_totals(self) -> int:
        """Number of parameters that totals are by: the entries of vech(D)."""
        return self.q * (self.q + 1) // 2

    @property
    def linear(self) -> bool:
        """Whether D is linear in its natural parameters."""
        return all(s.linear for s in self.structures)

    @cached_property
    def longest_units(self) -> Array:
        """Longest sensible unit of each root parameter, (n_params,)."""
        parts = zip(self.structures, self.sizes, strict=True)
        return np.concatenate([np.empty(0), *(s.longest_units(q) for s, q in parts)])

    @property
    def longest_steps(self) -> Array | None:
        """Longest sensible step of each search parameter, (n_params,); None: any."""
        return None

    @property
    def is_bounded(self) -> bool:
        """Whether some search parameters give no covariance matrix: D and its root always do."""
        return False

    def contains(self, phi: Array) -> bool:
        """Whether phi gives covariance matrices."""
        return True

    def part_within(self, phi: Array, step: Array) -> float:
        """The part of a step that stays clear of the edge of the range: there is none."""
        return 1.0

    def ends(self, phi: Array) -> list[End]:
        """Ends of ranges that parameters are on their way to: D and its root have none."""
        return []

    def near_ends(self, phi: Array) -> list[Array]:
        """Search parameters as at phi, but each near an end of its range: there are none."""
        return []

    def at_ends(self, phi: Array, some: Sequence[End]) -> tuple[Array, NDArray[np.bool_]]:
        """Search parameters next to some ends, and which of them stay there, (n_params,)."""
        return phi, np.zeros(self.n_params, dtype=bool)

    def onward(self, phi: Array, end: End, units: float) -> Array:
        """Search parameters some units nearer to an end."""
        return phi

    def with_zeros(self, phi: Array) -> list[Array]:
        """Search parameters without one effect, or without one term."""
        whole = [np.arange(self.q)[columns] for columns in self.columns]
        single = [
            effects[[k]] for effects in whole if len(effects) > 1 for k in range(len(effects))
        ]
        out = []
        for effects in [*single, *whole]:
            D = self.Lambda(phi) @ self.Lambda(phi).T
            D[effects], D[:, effects] = 0.0, 0.0
            out.append(self.moved(phi, D))
        return out

    def well_inside(self, phi: Array, least: float) -> Array:
        """Search parameters as at phi, away from the edge of the range."""
        return phi

    def log_determinant(self, phi: Array) -> LogDeterminant:
        """Log determinant of what has to be positive definite, by phi: there is nothing."""
        n = self.n_params
        return LogDeterminant(0.0, np.zeros(n), np.zeros((n, n)), np.zeros(n))

    def kappa(self, phi: Array) -> Array | None:
        """Return the working parameters of the residuals, as engines take them: there are none."""
        return None

    def other_starts(self) -> list[Array]:
        """Find further root parameters to search from in small data sets."""
        parts = [s.other_starts(q) for s, q in zip(self.structures, self.sizes, strict=True)]
        starts = []
        for k in range(max(len(part) for part in parts)):
            D = np.zeros((self.q, self.q))
            for part, c in zip(parts, self.columns, strict=True):
                D[c, c] = part[k % len(part)]
            starts.append(BlockCovariance.phi(self, D))
        return starts

    @property
    def n_drawn(self) -> int:
        """Number of points drawn at random to search from in small data sets, besides."""
        return 0

    def drawn(self, rng: np.random.Generator) -> Array:
        """Draw search parameters: variances from small to large, any correlations."""
        A = rng.normal(size=(self.q, self.q + 1))
        sd = np.exp(rng.uniform(*LOG_SDS, self.q))
        return BlockCovariance.phi(self, (A @ A.T) / (self.q + 1) * np.outer(sd, sd))

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each entry of vech(D)."""
        return vech_pairs(self.q)

    def _blocks(self, part: Callable[[RandomStructure, int, slice, slice], Array]) -> Array:
        """Last two axes of each term's part on the diagonal, leading axes by parameter."""
        parts = [
            part(s, q, c, k)
            for s, q, c, k in zip(
                self.structures, self.sizes, self.columns, self.params, strict=True
            )
        ]
        lead = parts[0].ndim - 2 if parts else 0
        out = np.zeros((self.n_params,) * lead + (self.q, self.q))
        for value, c, k in zip(parts, self.columns, self.params, strict=True):
            out[(k,) * lead + (c, c)] = value
        return out

    def Lambda(self, phi: Array) -> Array:
        """Root of D, (q, q)."""
        return self._blocks(lambda s, q, c, k: s.Lambda(phi[k], q))

    def jacobian(self, phi: Array) -> Array:
        """Derivatives of vech(D) by phi, (n_params, K)."""
        if not self.q:
            return np.empty((0, 0))
        return self._blocks(lambda s, q, c, k: s.d_D(phi[k], q))[:, *self.pairs]

    def _curvature(self, phi: Array) -> Array:
        """Second derivatives of vech(D) by phi, (n_params, n_params, K)."""
        if not self.q:
            return np.empty((0, 0, 0))
        return self._blocks(lambda s, q, c, k: s.d2_D(phi[k], q))[:, :, *self.pairs]

    def bend(self, phi: Array, v: Array) -> Array:
        """Second derivatives of v'vech(D) by phi, (n_params, n_params), for v (K,)."""
        return np.asarray(self._curvature(phi) @ v)

    def own_bends(self, phi: Array) -> Array:
        """Second derivatives of vech(D) by each entry of phi alone, (n_params, K)."""
        return np.asarray(np.einsum("aak->ak", self._curvature(phi)))

    def natural_jacobian(self, D: Array) -> Array:
        """Derivatives of vech(D) by the natural parameters, (n_params, K)."""
        if not self.q:
            return np.empty((0, 0))
        return self._blocks(lambda s, q, c, k: s.natural_basis(D[c, c]))[:, *self.pairs]

    def natural(self, D: Array) -> Array:
        """Natural parameters (n_params,) of D (q, q)."""
        parts = [s.natural(D[c, c]) for s, c in zip(self.structures, self.columns, strict=True)]
        return np.concatenate([np.empty(0), *parts])

    def theta(self, D: Array, sigma2: float, phi: Array) -> Array:
        """Natural parameters of D on the user's scale, then sigma2."""
        return np.append(self.natural(D), sigma2)

    def theta_jacobian(self, sigma2: float, phi: Array) -> Array:
        """Derivatives of theta by (natural parameters of D, sigma2)."""
        return np.eye(self.n_params + 1)

    def residual_variances(self, sigma2: float, phi: Array) -> dict[str, float]:
        """Residual variances as reported, by name."""
        return {"Residual": sigma2}

    def free(self, phi: Array) -> NDArray[np.bool_]:
        """Which search parameters are not at an end of their range, D's ranks aside."""
        return np.ones(self.n_params, dtype=bool)

    def theta_tail_names(self) -> list[str]:
        """Names of the parameters of theta after those of D."""
        return ["var(Residual)"]

    def tail_units(self, sigma2: float) -> Array:
        """Sizes of the parameters of theta after those of D that go with sigma2."""
        return np.array([sigma2])

    def working_names(self, random_names: Sequence[str]) -> list[str]:
        """What each of (natural parameters of D, sigma2) is called, for messages."""
        return [*random_names, "var(Residual)"]

    def edges(self, phi: Array) -> list[str]:
        """Say where parameters other than D's sit at an end of their range: there are none."""
        return []

    def moved(self, phi: Array, D: Array) -> Array:
        """Root parameters with another D."""
        return self.phi(D)

    def from_natural(self, tau: Array) -> Array:
        """D (q, q), not necessarily positive definite, for structures linear in tau."""
        D = np.zeros((self.q, self.q))
        row, column = self.pairs
        D[row, column] = D[column, row] = tau @ self.natural_jacobian(D)
        return D

    def matrix(self, natural: Array) -> Array:
        """D (q, q) of its natural parameters (n_params,)."""
        D = np.zeros((self.q, self.q))
        for s, q, c, k in zip(self.structures, self.sizes, self.columns, self.params, strict=True):
            D[c, c] = s.matrix(natural[k], q)
        return D

    def phi(self, D: Array) -> Array:
        """Root parameters nearest to D."""
        parts = [s.phi(D[c, c]) for s, c in zip(self.structures, self.columns, strict=True)]
        return np.concatenate([np.empty(0), *parts])
