"""Random small problems, and a dense likelihood for them that shares no code with the engines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag, null_space

import lmmfast
from lmmfast.covariance.structures import RandomStructure

STRUCTURES = {
    "unstructured": lmmfast.D.unstructured(),
    "diag": lmmfast.D.diag(),
    "identity": lmmfast.D.identity(),
    "cs": lmmfast.D.cs(),
    "cs(hom)": lmmfast.D.cs(hom=True),
}
N_PROBLEMS = 2000


@dataclass(frozen=True)
class SmallProblem:
    """Data of one problem; rows of a group lie together."""

    seed: int
    name: str  # of the structure
    reml: bool
    y: np.ndarray  # (n,)
    X: np.ndarray  # (n, p)
    Z: np.ndarray  # (n, q)
    weights: np.ndarray | None  # (n,)
    sizes: np.ndarray  # (m,)

    @property
    def structure(self) -> RandomStructure:
        return STRUCTURES[self.name]

    @property
    def groups(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def random_problem(seed: int) -> SmallProblem:
    """Problem number ``seed``: 2-40 groups of 1-12 rows, q = 1-3, often a singular true D."""
    rng = np.random.default_rng([20240, seed])
    name = list(STRUCTURES)[seed % len(STRUCTURES)]
    q = int(rng.integers(2 if name.startswith("cs") else 1, 4))
    p = int(rng.integers(1, 4))
    largest = int(rng.choice([3, 6, 12]))
    sizes = rng.integers(1, largest + 1, rng.integers(2, 41))
    n = int(sizes.sum())
    while n <= p + 1:
        sizes = sizes + 1
        n = int(sizes.sum())
    time = np.concatenate([np.arange(k) for k in sizes]).astype(float)
    X = np.column_stack([np.ones(n), rng.standard_normal((n, p - 1))])
    if p > 1 and rng.random() < 0.3:
        X[:, 1] = time if rng.random() < 0.5 else np.repeat(rng.standard_normal(len(sizes)), sizes)
    Z = np.column_stack([np.ones(n), rng.standard_normal((n, q - 1))])
    if q > 1 and rng.random() < 0.4:
        Z[:, 1] = time
    root = rng.standard_normal((q, rng.integers(0, q + 1))) * rng.choice([0.1, 0.5, 1.0, 5.0])
    b = rng.standard_normal((len(sizes), root.shape[1])) @ root.T
    weights = rng.uniform(0.2, 5.0, n) if rng.random() < 0.25 else None
    noise = rng.standard_normal(n) / np.sqrt(1.0 if weights is None else weights)
    y = X @ rng.standard_normal(p) + np.sum(Z * np.repeat(b, sizes, axis=0), axis=1) + noise
    reml = bool((seed // len(STRUCTURES)) % 2)
    return SmallProblem(seed, name, reml, y, X, Z, weights, sizes)


class DenseLikelihood:
    """Profiled log-likelihood and gradient by D / sigma2: every V_i formed, all in one batch.

    Groups are padded to the longest with rows of zeros, on which V is the identity.
    """

    def __init__(self, problem: SmallProblem) -> None:
        m, longest = len(problem.sizes), int(problem.sizes.max())
        i = problem.groups
        j = np.arange(len(i)) - np.repeat(np.cumsum(problem.sizes) - problem.sizes, problem.sizes)

        def padded(columns: np.ndarray) -> np.ndarray:
            out = np.zeros((m, longest, columns.shape[1]))
            out[i, j] = columns
            return out

        self.n, self.p = problem.X.shape
        self.reml = problem.reml
        self.A = padded(np.column_stack([problem.X, problem.y]))
        self.Z = padded(problem.Z)
        self.R = np.tile(np.eye(longest), (m, 1, 1))
        if problem.weights is not None:
            self.R[i, j, j] = 1.0 / problem.weights

    def __call__(self, D: np.ndarray) -> tuple[float, np.ndarray]:
        """Log-likelihood, and the symmetric matrix of its derivatives by the entries of D."""
        A, Z, p = self.A, self.Z, self.p
        V = Z @ D @ Z.transpose(0, 2, 1) + self.R
        V_inv_AZ = np.linalg.solve(V, np.concatenate([A, Z], axis=2))
        V_inv_A, V_inv_Z = V_inv_AZ[:, :, : p + 1], V_inv_AZ[:, :, p + 1 :]
        gram = np.einsum("mni,mnj->ij", A, V_inv_A)
        S = gram[:p, :p]
        c = np.append(-np.linalg.solve(S, gram[:p, p]), 1.0)
        df = self.n - p if self.reml else self.n
        sigma2 = float(c @ gram @ c) / df
        if not sigma2 > 0:
            return -np.inf, np.zeros_like(D)
        logdet = np.linalg.slogdet(V)[1].sum()
        value = df * (np.log(2 * np.pi * sigma2) + 1) + logdet
        H = np.einsum("mna,mnj->maj", Z, V_inv_A)
        r = H @ c
        gradient = np.einsum("ma,mb->ab", r, r) / sigma2 - np.einsum("mna,mnb->ab", Z, V_inv_Z)
        if self.reml:
            value += np.linalg.slogdet(S)[1]
            X = H[:, :, :p]
            gradient += np.einsum("mai,ij,mbj->ab", X, np.linalg.inv(S), X, optimize=True)
        return -0.5 * value, 0.5 * gradient


def why_not_identifiable(problem: SmallProblem) -> str:
    """Return why the model cannot be fitted to these data, from dense algebra; else nothing."""
    starts = np.cumsum(problem.sizes) - problem.sizes
    parts = [slice(a, a + k) for a, k in zip(starts, problem.sizes, strict=True)]
    Z = block_diag(*[problem.Z[i] for i in parts])
    n, q = problem.Z.shape
    if np.linalg.matrix_rank(np.column_stack([problem.X, Z])) == n:
        return "saturated"
    D = np.eye(q)
    weights = np.ones(n) if problem.weights is None else problem.weights
    dV = [
        block_diag(*[problem.Z[i] @ E @ problem.Z[i].T for i in parts])
        for E in problem.structure.natural_basis(D)
    ]
    dV.append(np.diag(1.0 / weights))
    V = Z @ Z.T + dV[-1]
    if problem.reml:
        K = null_space(problem.X.T)
        P = K @ np.linalg.solve(K.T @ V @ K, K.T)
    else:
        P = np.linalg.inv(V)
    PdV = np.array([P @ M for M in dV])
    info = 0.5 * np.einsum("kij,lji->kl", PdV, PdV)
    size = np.sqrt(np.clip(np.diag(info), 0.0, None))
    if not (size > 1e-9 * size.max()).all():
        return "empty information"
    if np.linalg.eigvalsh(info / np.outer(size, size))[0] < 1e-10:
        return "singular information"
    return ""
