"""Structures of D, the covariance matrix of the random effects.

A structure is a smooth map from *root parameters* phi, free of bounds, to a positive semidefinite
D(phi) = Lambda(phi) Lambda(phi)'. A variance of zero or a correlation of one is an interior,
stationary point of that map (docs/algorithm.md, section 4). On the user's side a structure has
*natural* parameters (variances, covariances, a correlation), reported as ``fit.theta``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array, vech_pairs

Ints = NDArray[np.int64]


class RandomStructure(ABC):
    """The covariance structure of one random-effects term with q columns."""

    name: str
    written: str  # as a user makes it
    #: Which changes of the basis of Z keep D within the structure: "affine", "scale" or "common".
    invariance: str
    #: What a formula calls it, and whether its variances are equal.
    formula: tuple[str, bool | None]
    #: Names of the structures, itself among them, that contain it.
    within: tuple[str, ...]
    #: Whether the compiled search knows it, by its name.
    compiled = True

    def __repr__(self) -> str:
        """Return the structure as written."""
        return self.written

    @abstractmethod
    def n_params(self, q: int) -> int:
        """Count the parameters."""

    @abstractmethod
    def Lambda(self, phi: Array, q: int) -> Array:
        """Return a root (q, q) of D."""

    @abstractmethod
    def d_D(self, phi: Array, q: int) -> Array:
        """First derivatives of D, (n_params, q, q)."""

    @abstractmethod
    def d2_D(self, phi: Array, q: int) -> Array:
        """Second derivatives of D, (n_params, n_params, q, q)."""

    @abstractmethod
    def phi(self, D: Array) -> Array:
        """Root parameters of the member of the structure nearest to a positive semidefinite D."""

    @abstractmethod
    def natural(self, D: Array) -> Array:
        """Natural parameters (n_params,) of D."""

    @abstractmethod
    def natural_basis(self, D: Array) -> Array:
        """Derivatives of D by its natural parameters, (n_params, q, q)."""

    def matrix(self, natural: Array, q: int) -> Array:
        """Return D (q, q) of its natural parameters (n_params,)."""
        return np.einsum("k,kij->ij", natural, self.natural_basis(np.zeros((q, q))))

    @abstractmethod
    def natural_names(self, names: tuple[str, ...], group: str) -> list[str]:
        """Names of the natural parameters."""

    @property
    def linear(self) -> bool:
        """Whether D is linear in its natural parameters."""
        return True

    def longest_units(self, q: int) -> Array:
        """Longest sensible unit of each root parameter, (n_params,).

        An angle is not counted in standard errors where the data say nothing about it.
        """
        return np.full(self.n_params(q), np.inf)

    def other_starts(self, q: int) -> list[Array]:
        """D (q, q) in whose neighbourhood the likelihood of a small data set may have a maximum.

        Besides the one near I. Of few rows nearly all variation can be between the clusters.
        """
        return [100.0 * np.eye(q)]


def _basis(q: int) -> Array:
    """Symmetric basis matrices of vech, (q (q + 1) / 2, q, q)."""
    row, column = vech_pairs(q)
    E = np.zeros((row.size, q, q))
    k = np.arange(row.size)
    E[k, row, column] = E[k, column, row] = 1.0
    return E


def psd_root(D: Array) -> Array:
    """Lower triangular root of a positive semidefinite matrix, singular ones included.

    The R factor of a QR decomposition of the symmetric root needs no pivot to be positive.
    """
    values, vectors = np.linalg.eigh((D + D.T) / 2)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    R = np.asarray(np.linalg.qr(root.T, mode="r"))
    signs = np.where(np.diag(R) < 0, -1.0, 1.0)
    return np.asarray((R * signs[:, None]).T)


@dataclass(frozen=True, repr=False)
class Unstructured(RandomStructure):
    """Any covariance matrix; Lambda is its lower triangular root."""

    written = "D.unstructured()"
    name = "unstructured"
    invariance = "affine"
    formula = ("us", None)
    within = ("unstructured",)

    def n_params(self, q: int) -> int:  # noqa: D102
        return q * (q + 1) // 2

    def Lambda(self, phi: Array, q: int) -> Array:  # noqa: D102
        out = np.zeros((q, q))
        out[vech_pairs(q)] = phi
        return out

    def d_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        row, column = vech_pairs(q)
        out = np.zeros((row.size, q, q))
        out[np.arange(row.size), row] = self.Lambda(phi, q)[:, column].T
        return out + out.transpose(0, 2, 1)

    def d2_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        row, column = vech_pairs(q)
        out = np.zeros((row.size, row.size, q, q))
        i, j = np.nonzero(column[:, None] == column[None, :])
        out[i, j, row[i], row[j]] += 1.0
        return out + out.transpose(0, 1, 3, 2)

    def phi(self, D: Array) -> Array:  # noqa: D102
        return psd_root(D)[vech_pairs(len(D))]

    def natural(self, D: Array) -> Array:  # noqa: D102
        return D[vech_pairs(len(D))]

    def natural_basis(self, D: Array) -> Array:  # noqa: D102
        return _basis(len(D))

    def natural_names(self, names: tuple[str, ...], group: str) -> list[str]:  # noqa: D102
        row, column = vech_pairs(len(names))
        return [
            f"var({names[r]}|{group})" if r == c else f"cov({names[c]},{names[r]}|{group})"
            for r, c in zip(row, column, strict=True)
        ]


@dataclass(frozen=True, repr=False)
class Diagonal(RandomStructure):
    """Independent random effects, a variance each."""

    written = "D.diag()"
    name = "diagonal"
    invariance = "scale"
    formula = ("diag", False)
    within = ("diagonal", "heterogeneous compound symmetry", "unstructured")

    def n_params(self, q: int) -> int:  # noqa: D102
        return q

    def Lambda(self, phi: Array, q: int) -> Array:  # noqa: D102
        return np.diag(phi)

    def d_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        return np.einsum("k,kij->kij", 2 * phi, self.natural_basis(np.eye(q)))

    def d2_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        return np.einsum("kl,kij->klij", 2 * np.eye(q), self.natural_basis(np.eye(q)))

    def phi(self, D: Array) -> Array:  # noqa: D102
        return np.sqrt(np.clip(np.diag(D), 0.0, None))

    def natural(self, D: Array) -> Array:  # noqa: D102
        return np.diag(D).copy()

    def natural_basis(self, D: Array) -> Array:  # noqa: D102
        q = len(D)
        out = np.zeros((q, q, q))
        out[np.arange(q), np.arange(q), np.arange(q)] = 1.0
        return out

    def natural_names(self, names: tuple[str, ...], group: str) -> list[str]:  # noqa: D102
        return [f"var({name}|{group})" for name in names]


@dataclass(frozen=True, repr=False)
class Identity(RandomStructure):
    """Independent random effects with one variance: D = v I."""

    written = "D.identity()"
    name = "identity"
    invariance = "common"
    formula = ("diag", True)
    within = (
        "identity",
        "diagonal",
        "compound symmetry",
        "heterogeneous compound symmetry",
        "unstructured",
    )

    def n_params(self, q: int) -> int:  # noqa: D102
        return 1

    def Lambda(self, phi: Array, q: int) -> Array:  # noqa: D102
        return phi[0] * np.eye(q)

    def d_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        return 2 * phi[0] * np.eye(q)[None]

    def d2_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        return 2 * np.eye(q)[None, None]

    def phi(self, D: Array) -> Array:  # noqa: D102
        return np.sqrt(np.clip(self.natural(D), 0.0, None))

    def natural(self, D: Array) -> Array:  # noqa: D102
        return np.array([np.trace(D) / len(D)])

    def natural_basis(self, D: Array) -> Array:  # noqa: D102
        return np.eye(len(D))[None]

    def natural_names(self, names: tuple[str, ...], group: str) -> list[str]:  # noqa: D102
        return [f"var({','.join(names)}|{group})"]


@dataclass(frozen=True, repr=False)
class CompoundSymmetry(RandomStructure):
    """One variance v and one covariance c: D = (v - c) I + c J, c from -v/(q - 1) to v.

    Root parameters are the square roots of the two eigenvalues, v - c and v + (q - 1) c.
    """

    written = "D.cs(hom=True)"
    name = "compound symmetry"
    invariance = "common"
    formula = ("cs", True)
    within = ("compound symmetry", "heterogeneous compound symmetry", "unstructured")

    def n_params(self, q: int) -> int:  # noqa: D102
        return 2

    def _projectors(self, q: int) -> Array:
        mean = np.full((q, q), 1.0 / q)
        return np.stack([np.eye(q) - mean, mean])

    def Lambda(self, phi: Array, q: int) -> Array:  # noqa: D102
        return np.einsum("k,kij->ij", phi, self._projectors(q))

    def d_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        return np.einsum("k,kij->kij", 2 * phi, self._projectors(q))

    def d2_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        return np.einsum("kl,kij->klij", 2 * np.eye(2), self._projectors(q))

    def phi(self, D: Array) -> Array:  # noqa: D102
        variance, covariance = self.natural(D)
        eigen = np.array([variance - covariance, variance + (len(D) - 1) * covariance])
        return np.sqrt(np.clip(eigen, 0.0, None))

    def natural(self, D: Array) -> Array:  # noqa: D102
        q = len(D)
        return np.array([np.trace(D) / q, (D.sum() - np.trace(D)) / (q * (q - 1))])

    def natural_basis(self, D: Array) -> Array:  # noqa: D102
        q = len(D)
        return np.stack([np.eye(q), np.ones((q, q)) - np.eye(q)])

    def natural_names(self, names: tuple[str, ...], group: str) -> list[str]:  # noqa: D102
        return [f"var({','.join(names)}|{group})", f"cov({','.join(names)}|{group})"]


@dataclass(frozen=True, repr=False)
class HeterogeneousCS(RandomStructure):
    """A standard deviation each and one correlation rho, from -1/(q - 1) to 1.

    Root parameters are the square roots of the standard deviations and an angle eta: rho runs
    through its range as a sine, so that its ends are stationary points. Squares, because a
    standard deviation of the wrong sign would leave the structure (for q > 2); for q = 2 it only
    turns the sign of rho, and the root parameters are the standard deviations themselves.
    """

    written = "D.cs()"
    name = "heterogeneous compound symmetry"
    invariance = "scale"
    formula = ("cs", False)
    within = ("heterogeneous compound symmetry", "unstructured")
    compiled = False

    def n_params(self, q: int) -> int:  # noqa: D102
        return q + 1

    @property
    def linear(self) -> bool:  # noqa: D102
        return False

    def longest_units(self, q: int) -> Array:  # noqa: D102
        return np.append(np.full(q, np.inf), 1.0)

    def other_starts(self, q: int) -> list[Array]:  # noqa: D102
        # Maxima lie at correlations of either sign and where single standard deviations are zero.
        C = [self._C(rho, q) for rho in (-0.9 / (q - 1), 0.9)]
        starts = [100.0 * np.eye(q), *(10.0 * corr for corr in C)]
        if q > 2:
            sds = [np.ones(q), *(1.0 - 0.9 * np.eye(q))]
            starts += [0.1 * np.outer(sd, sd) * corr for sd in sds for corr in C]
        return starts

    def _sd(self, phi: Array, q: int) -> tuple[Array, Array, Array]:
        """Standard deviations and their first two derivatives by their root parameters."""
        root = phi[:-1]
        if q == 2:
            return root, np.ones(q), np.zeros(q)
        return root**2, 2 * root, np.full(q, 2.0)

    def _correlation(self, eta: float, q: int) -> tuple[float, float, float]:
        """Rho and its first two derivatives by eta."""
        lowest = -1.0 / (q - 1)
        middle, half = (1 + lowest) / 2, (1 - lowest) / 2
        rho = middle + half * np.sin(eta)
        return rho, half * np.cos(eta), middle - rho

    def _C(self, rho: float, q: int) -> Array:
        return np.full((q, q), rho) + (1 - rho) * np.eye(q)

    def Lambda(self, phi: Array, q: int) -> Array:  # noqa: D102
        rho = self._correlation(phi[-1], q)[0]
        return np.asarray(self._sd(phi, q)[0][:, None] * psd_root(self._C(rho, q)))

    def d_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        sd, d_sd, _ = self._sd(phi, q)
        rho, d_rho, _ = self._correlation(phi[-1], q)
        by_sd = np.einsum("k,ki,j,ij->kij", d_sd, np.eye(q), sd, self._C(rho, q))
        by_eta = d_rho * np.outer(sd, sd) * (1 - np.eye(q))
        return np.concatenate([by_sd + by_sd.transpose(0, 2, 1), by_eta[None]])

    def d2_D(self, phi: Array, q: int) -> Array:  # noqa: D102
        sd, d_sd, d2_sd = self._sd(phi, q)
        rho, d_rho, d2_rho = self._correlation(phi[-1], q)
        off = 1 - np.eye(q)
        out = np.zeros((q + 1, q + 1, q, q))
        by_sds = np.einsum("k,l,ki,lj,ij->klij", d_sd, d_sd, np.eye(q), np.eye(q), self._C(rho, q))
        by_sds[np.arange(q), np.arange(q)] += np.einsum(
            "k,ki,j,ij->kij", d2_sd, np.eye(q), sd, self._C(rho, q)
        )
        out[:q, :q] = by_sds + by_sds.transpose(0, 1, 3, 2)
        by_sd_eta = d_rho * np.einsum("k,ki,j,ij->kij", d_sd, np.eye(q), sd, off)
        out[:q, q] = out[q, :q] = by_sd_eta + by_sd_eta.transpose(0, 2, 1)
        out[q, q] = d2_rho * np.outer(sd, sd) * off
        return out

    def phi(self, D: Array) -> Array:  # noqa: D102
        q = len(D)
        rho = self.natural(D)[-1]
        lowest = -1.0 / (q - 1)
        sine = np.clip((2 * rho - 1 - lowest) / (1 - lowest), -1.0, 1.0)
        sd = np.sqrt(np.clip(np.diag(D), 0.0, None))
        return np.append(sd if q == 2 else np.sqrt(sd), np.arcsin(sine))

    def natural(self, D: Array) -> Array:  # noqa: D102
        q = len(D)
        sd = np.sqrt(np.clip(np.diag(D), 0.0, None))
        products = np.outer(sd, sd)[np.tril_indices(q, -1)]
        covariances = D[np.tril_indices(q, -1)]
        used = products > 0
        rho = np.mean(covariances[used] / products[used]) if used.any() else 0.0
        return np.append(np.diag(D), np.clip(rho, -1.0 / (q - 1) if q > 1 else -1.0, 1.0))

    def matrix(self, natural: Array, q: int) -> Array:  # noqa: D102
        sd = np.sqrt(np.clip(natural[:-1], 0.0, None))
        return np.outer(sd, sd) * self._C(natural[-1], q)

    def natural_basis(self, D: Array) -> Array:  # noqa: D102
        q = len(D)
        *variances, rho = self.natural(D)
        sd = np.sqrt(variances)
        off = 1 - np.eye(q)
        if rho == 0:  # covariances stay zero, whatever the variances
            half = np.zeros((q, q, q))
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                slopes = rho * off * sd[None, :] / (2 * sd[:, None])
                half = np.einsum("ki,ij->kij", np.eye(q), slopes)
        by_variance = half + half.transpose(0, 2, 1)
        by_variance[np.arange(q), np.arange(q), np.arange(q)] = 1.0
        return np.concatenate([by_variance, (np.outer(sd, sd) * off)[None]])

    def natural_names(self, names: tuple[str, ...], group: str) -> list[str]:  # noqa: D102
        return [*(f"var({name}|{group})" for name in names), f"cor({','.join(names)}|{group})"]


#: All structures of D, by name.
STRUCTURES: dict[str, RandomStructure] = {
    structure.name: structure
    for structure in (
        Unstructured(),
        Diagonal(),
        Identity(),
        CompoundSymmetry(),
        HeterogeneousCS(),
    )
}
