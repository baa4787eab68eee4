"""Residual correlation structures by their definitions, in NumPy; complex psi give derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def matern52(d, length):
    a = np.sqrt(5) * d / length
    return (1 + a + a**2 / 3) * np.exp(-a)


def matern32(d, length):
    a = np.sqrt(3) * d / length
    return (1 + a) * np.exp(-a)


def spherical(d, length):
    x = d / length
    return np.where(d < np.real(length), 1 - 1.5 * x + 0.5 * x**3, 0)


def linear(d, length):
    return np.where(d < np.real(length), 1 - d / length, 0)


DISTANCE: dict[str, Callable] = {  # of distances and psi
    "ar1": lambda d, psi: np.tanh(psi) ** d,
    "exponential": lambda d, psi: np.exp(-d / np.exp(psi)),
    "gaussian": lambda d, psi: np.exp(-((d / np.exp(psi)) ** 2)),
    "linear": lambda d, psi: linear(d, np.exp(psi)),
    "matern32": lambda d, psi: matern32(d, np.exp(psi)),
    "matern52": lambda d, psi: matern52(d, np.exp(psi)),
    "rational_quadratic": lambda d, psi: 1 / (1 + (d / np.exp(psi)) ** 2),
    "spherical": lambda d, psi: spherical(d, np.exp(psi)),
}


def compound_symmetry(T, psi):
    lo = -1 / (T - 1)
    rho = lo + (1 - lo) / (1 + np.exp(-psi[0]))
    return np.where(np.eye(T) == 1, 1, rho)


def toeplitz(T, psi):
    """Each correlation from the partial one, given the levels between (Yule-Walker equations)."""
    rho = np.ones(1, complex)
    for k, r in enumerate(np.tanh(psi)):  # rho_0 … rho_k are known
        between = rho[np.abs(np.subtract.outer(np.arange(k), np.arange(k)))]
        solved = np.linalg.solve(between, rho[1:])
        rest = 1 - rho[1:] @ solved
        rho = np.append(rho, rho[1:][::-1] @ solved + r * rest)
    return rho[np.abs(np.subtract.outer(np.arange(T), np.arange(T)))]


def banded_toeplitz(T, psi):
    rho = np.concatenate([[1], np.tanh(psi), np.zeros(T - 1 - len(psi))])
    return rho[np.abs(np.subtract.outer(np.arange(T), np.arange(T)))]


def antedependence(T, psi):
    C = np.eye(T, dtype=complex)
    for i in range(T):
        for j in range(i):
            C[i, j] = C[j, i] = np.prod(np.tanh(psi[j:i]))
    return C


def unstructured(T, psi):
    L = np.eye(T, dtype=complex)
    L[np.tril_indices(T, -1)] = psi
    L /= np.sqrt(np.sum(L**2, axis=1, keepdims=True))
    return L @ L.T


def arma11(T, psi):
    C = np.eye(T, dtype=complex)
    rho = np.tanh(psi[0])
    gamma = (rho + np.tanh(psi[1])) / 2
    for i in range(T):
        for j in range(i):
            C[i, j] = C[j, i] = gamma * rho ** (i - j - 1)
    return C


TABLE: dict[str, tuple[Callable, Callable]] = {  # of T and psi; number of parameters for T levels
    "arma11": (arma11, lambda T: 2),
    "compound_symmetry": (compound_symmetry, lambda T: 1),
    "toeplitz": (toeplitz, lambda T: T - 1),
    "banded_toeplitz": (banded_toeplitz, lambda T: min(2, T - 1)),
    "antedependence": (antedependence, lambda T: T - 1),
    "unstructured": (unstructured, lambda T: T * (T - 1) // 2),
}


def derivatives(f: Callable, psi: np.ndarray) -> np.ndarray:
    """df/dpsi_k by complex steps, k first."""
    step = 1e-30
    psi = np.asarray(psi, float)
    return np.array([np.imag(f(psi + 1j * step * e)) / step for e in np.eye(len(psi))])
