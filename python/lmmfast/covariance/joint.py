"""Random effects and residual structure together: one vector of search parameters.

The parameters of the totals are vech(Ddot), then the working parameters kappa of the residual
structure (docs/residual.md, section 1); V is homogeneous of degree one in (D, sigma2) at fixed
kappa, so sigma2 is profiled out as without a structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.residual import ranges
from lmmfast.residual.draws import LITTLE, drawn, nearly_constant
from lmmfast.residual.edges import edges, free
from lmmfast.residual.ends import End, ends
from lmmfast.residual.layout import ResidualParameters
from lmmfast.residual.linear import LinearEntries
from lmmfast.residual.log_determinant import LogDeterminant

#: Longest step of a search parameter of the residuals: logarithms and angles.
LONGEST_STEP = 1.5
#: Points drawn at random to search from, of few rows, and their least distance from an edge.
N_DRAWN = 8
DRAWN_ROOM = 0.05


@dataclass(frozen=True)
class JointCovariance(BlockCovariance):
    """D(phi) and kappa(phi): phi holds the root parameters of D, then those of the residuals.

    Parameters
    ----------
    structures, sizes
        As in `BlockCovariance`; none without random effects.
    residual : ResidualParameters
    starts : tuple of ndarray
        Search parameters of the residuals to begin from, the best guess first.
    linear_entries : LinearEntries or None
        Of an R that is linear in its entries; None: it is not, or they are not known.
    """

    residual: ResidualParameters
    starts: tuple[Array, ...] = ()
    linear_entries: LinearEntries | None = None

    @cached_property
    def random(self) -> BlockCovariance:
        """The random effects alone."""
        return BlockCovariance(self.structures, self.sizes)

    @property
    def n_random(self) -> int:
        """Number of parameters of D."""
        return self.random.n_params

    @cached_property
    def n_params(self) -> int:
        """Number of search parameters."""
        return self.n_random + self.residual.n_params

    @property
    def n_totals(self) -> int:
        """Number of parameters that totals are by: vech(D), kappa."""
        return self.random.n_totals + self.residual.n_params

    @property
    def linear(self) -> bool:
        """V is not linear in the parameters of the residuals."""
        return False

    @cached_property
    def longest_units(self) -> Array:
        """Longest sensible unit of each search parameter, (n_params,)."""
        return np.append(self.random.longest_units, np.ones(self.residual.n_params))

    @cached_property
    def longest_steps(self) -> Array:
        """Longest sensible step of each search parameter, (n_params,)."""
        own = np.full(self.residual.n_params, LONGEST_STEP)
        return np.append(np.full(self.n_random, np.inf), own)

    def kappa(self, phi: Array) -> Array:
        """Working parameters of the residual structure."""
        return self.residual.kappa(phi[self.n_random :])

    @property
    def is_bounded(self) -> bool:
        """Whether some search parameters give no covariance matrix."""
        return ranges.is_bounded(self.residual)

    def contains(self, phi: Array) -> bool:
        """Whether the covariance matrix of the residuals is positive definite over all visits."""
        return ranges.contains(self.residual, self.kappa(phi))

    def part_within(self, phi: Array, step: Array) -> float:
        """The part of a step that stays clear of the edge of the range."""
        own = phi[self.n_random :], step[self.n_random :]
        return ranges.part_within(self.residual, *own)

    def well_inside(self, phi: Array, least: float) -> Array:
        """Search parameters as at phi, but this far from the edge of the range at least."""
        kappa = ranges.well_inside(self.residual, self.kappa(phi), least)
        return np.append(phi[: self.n_random], self.residual.phi(kappa))

    def log_determinant(self, phi: Array) -> LogDeterminant:
        """Log determinant of the correlations over all visits, by all search parameters."""
        own = ranges.log_determinant(self.residual, self.kappa(phi))
        before = np.zeros(self.n_random)
        return LogDeterminant(
            own.value,
            np.append(before, own.g),
            _beside(np.diag(before), own.bent),
            np.append(before, own.straight),
        )

    def ends(self, phi: Array) -> list[End]:
        """Ends of ranges that the parameters of the residuals are on their way to."""
        return ends(self.residual, self.kappa(phi))

    def at_ends(self, phi: Array, some: Sequence[End]) -> tuple[Array, NDArray[np.bool_]]:
        """Search parameters next to some ends, and which of them stay there, (n_params,)."""
        held = np.zeros(self.n_params, dtype=bool)
        for end in some:
            held[self.n_random + end.held] = True
            phi = self.onward(phi, end, end.units)
        return phi, held

    def onward(self, phi: Array, end: End, units: float) -> Array:
        """Search parameters some units nearer to an end."""
        own = self.residual.phi(end.moved(self.kappa(phi), units))
        nearer = np.append(phi[: self.n_random], own)
        if not end.shrinks or not self.q:
            return nearer
        Lambda = self.Lambda(phi)
        return self.moved(nearer, np.exp(2 * units) * (Lambda @ Lambda.T))

    def with_zeros(self, phi: Array) -> list[Array]:
        """Search parameters without the variances of a term, or with a nugget of nothing or all."""
        out = super().with_zeros(phi)
        for place in self.residual.fractions:
            for nu in (0.0, 0.5 * np.pi):
                other = phi.copy()
                other[self.n_random + place] = nu
                out.append(other)
        return out

    def Lambda(self, phi: Array) -> Array:
        """Root of D, (q, q)."""
        return self.random.Lambda(phi[: self.n_random])

    def jacobian(self, phi: Array) -> Array:
        """Derivatives of (vech(D), kappa) by phi, (n_params, K)."""
        own = np.diag(self.residual.derivatives(phi[self.n_random :])[0])
        return _beside(self.random.jacobian(phi[: self.n_random]), own)

    def bend(self, phi: Array, v: Array) -> Array:
        """Second derivatives of v'(vech(D), kappa) by phi, (n_params, n_params), for v (K,)."""
        K = len(self.pairs[0])
        own = self.residual.derivatives(phi[self.n_random :])[1] * v[K:]
        return _beside(self.random.bend(phi[: self.n_random], v[:K]), np.diag(own))

    @property
    def is_linear_in_entries(self) -> bool:
        """Whether V is linear in D and in entries of R that are known by kappa."""
        return self.linear_entries is not None and all(s.linear for s in self.structures)

    def whole_bend(self, phi: Array, v: Array) -> Array:
        """Second derivatives of V by phi, weighted by the score v by (vech(D), kappa).

        As `bend`, and with those of R by kappa, where V `is_linear_in_entries`.
        """
        assert self.linear_entries is not None
        K = len(self.pairs[0])
        bent = self.bend(phi, v)
        bent[self.n_random :, self.n_random :] += self.linear_entries.bend(self.kappa(phi), v[K:])
        return bent

    def own_bends(self, phi: Array) -> Array:
        """Second derivatives of (vech(D), kappa) by each entry of phi alone, (n_params, K)."""
        own = np.diag(self.residual.derivatives(phi[self.n_random :])[1])
        return _beside(self.random.own_bends(phi[: self.n_random]), own)

    def edges(self, phi: Array) -> list[str]:
        """Say where parameters of the residuals sit at an end of their range."""
        return edges(self.residual, self.kappa(phi))

    def natural_jacobian(self, D: Array) -> Array:
        """Derivatives of vech(D) by the natural parameters of D, (n_random, K)."""
        return self.random.natural_jacobian(D)

    def moved(self, phi: Array, D: Array) -> Array:
        """Search parameters with another D, the residuals as at phi."""
        return np.append(self.random.phi(D), phi[self.n_random :])

    def phi(self, D: Array) -> Array:
        """Search parameters nearest to D, the residuals where the search begins."""
        return np.append(self.random.phi(D), self.starts[0])

    def other_starts(self) -> list[Array]:
        """Search parameters to begin from besides the first."""
        D = np.eye(self.q)
        random = (
            [self.random.phi(0.1 * D), *self.random.other_starts()] if self.q else [np.empty(0)]
        )
        out = [np.append(first, own) for first in random for own in self.starts]
        constant = nearly_constant(self.residual, self.starts[0])
        if constant is not None:
            out.append(np.append(self.random.phi(LITTLE * D), constant))
        return out

    @property
    def n_drawn(self) -> int:
        """Number of points drawn at random to search from in small data sets, besides."""
        return N_DRAWN

    def drawn(self, rng: np.random.Generator) -> Array:
        """Draw search parameters: any D, and residuals around where the search begins."""
        own = drawn(self.residual, self.starts[0], rng)
        return self.well_inside(np.append(self.random.drawn(rng), own), DRAWN_ROOM)

    def theta(self, D: Array, sigma2: float, phi: Array) -> Array:
        """Natural parameters of D on the user's scale, then of the residuals."""
        own = self.residual.natural(self.kappa(phi), sigma2)
        return np.append(self.random.natural(D), own)

    def theta_jacobian(self, sigma2: float, phi: Array) -> Array:
        """Derivatives of theta by (natural parameters of D, kappa, sigma2)."""
        own = self.residual.jacobian(self.kappa(phi), sigma2)
        return _beside(np.eye(self.n_random), own)

    def residual_variances(self, sigma2: float, phi: Array) -> dict[str, float]:
        """Variances of measurement errors or rows as reported, by name."""
        values = self.residual.error_variances(self.kappa(phi), sigma2)
        return {f"Residual{tail}": float(value) for tail, value in values.items()}

    def free(self, phi: Array) -> NDArray[np.bool_]:
        """Which search parameters are not at an end of their range, D's ranks aside."""
        return np.append(np.ones(self.n_random, dtype=bool), free(self.residual, self.kappa(phi)))

    def theta_tail_names(self) -> list[str]:
        """Names of the natural parameters of the residuals."""
        return [natural.name for natural in self.residual.names()]

    def tail_units(self, sigma2: float) -> Array:
        """Sizes of the natural parameters of the residuals: variances are about sigma2."""
        kinds = [(natural.scale, natural.name[:4]) for natural in self.residual.names()]
        return np.array([sigma2 if "variance" in kind or "cov(" in kind else 1.0 for kind in kinds])

    def working_names(self, random_names: Sequence[str]) -> list[str]:
        """What each of (natural parameters of D, kappa, sigma2) is about, for messages."""
        return [*random_names, *working_names(self.residual)]


def working_names(parameters: ResidualParameters) -> list[str]:
    """What each of (kappa, sigma2) is about: the natural parameter that depends on it most."""
    names = [natural.name for natural in parameters.names()]
    rng = np.random.default_rng(0)
    kappa = rng.uniform(0.2, 0.6, parameters.n_params)
    J = np.abs(parameters.jacobian(kappa, 1.0))
    taken: list[int] = [len(names) - 1] if parameters.n_params == 0 else []
    out = []
    for k in range(parameters.n_params):
        order = np.argsort(-J[:, k], kind="stable")
        best = next((int(j) for j in order if J[j, k] > 0 and j not in taken), int(order[0]))
        taken.append(best)
        out.append(names[best])
    rest = [j for j in range(len(names)) if j not in taken]
    return [*out, names[rest[0] if rest else -1]]


def _beside(A: Array, B: Array) -> Array:
    """Block-diagonal matrix of two blocks."""
    out = np.zeros((A.shape[0] + B.shape[0], A.shape[1] + B.shape[1]))
    out[: A.shape[0], : A.shape[1]] = A
    out[A.shape[0] :, A.shape[1] :] = B
    return out
