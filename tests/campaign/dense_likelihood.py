"""Log-likelihoods by dense algebra, from the parameters as reported, and other searches for more.

Nothing of lmmfast's engines, search or parametrisation is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import mpmath as mp
import numpy as np
from random_models import Problem, Term
from scipy.optimize import minimize

#: From this condition number of V on doubles are not enough, and 40 digits are taken.
ILL_CONDITIONED = 1e7
#: Parts of the median variance that are added to a nearly singular V, and by how much l falls then.
ADDED, LEAST_FALL = (1e-6, 1e-5, 1e-4), 0.2


class DenseLikelihood:
    """The profiled log-likelihood of a problem as a function of theta.

    Parameters
    ----------
    problem : Problem
    x_names : sequence of str
        Columns of X that the fit kept.
    """

    def __init__(self, problem: Problem, x_names: Sequence[str]) -> None:
        self.problem, self.reml = problem, problem.reml
        d = problem.data
        self.y = d["y"].to_numpy(float) - (d["o"].to_numpy() if problem.offset else 0.0)
        self.X = np.column_stack([self._column(name) for name in x_names])
        self.inverse_root_weights = 1 / np.sqrt(d["w"].to_numpy()) if problem.weights else None
        self._Z = [np.column_stack([self._column(c) for c in t.columns]) for t in problem.terms]
        self._same = [self._same_level(term) for term in problem.terms]
        self._rows = [np.flatnonzero(d["id"] == i) for i in d["id"].unique()]
        self._parts = [d.iloc[rows] for rows in self._rows]

    def _column(self, name: str) -> np.ndarray:
        d = self.problem.data
        if name in ("1", "Intercept"):
            return np.ones(len(d))
        if name == "arm[T.b]":
            return (d["arm"] == "b").to_numpy(float)
        return d[name].to_numpy(float)

    def _same_level(self, term: Term) -> np.ndarray:
        codes = self.problem.data.groupby(list(term.group)).ngroup().to_numpy()
        return codes[:, None] == codes

    def D(self, theta: Mapping[str, float], term: Term) -> np.ndarray:
        """Covariance matrix of a term, from its parameters by name."""
        names = ["Intercept" if c == "1" else c for c in term.columns]
        group, q = ":".join(term.group), len(names)
        if term.structure == "identity":
            return theta[f"var({','.join(names)}|{group})"] * np.eye(q)
        D = np.diag([theta[f"var({name}|{group})"] for name in names])
        if q == 2 and term.structure == "us":
            D[0, 1] = D[1, 0] = theta[f"cov({names[0]},{names[1]}|{group})"]
        if q == 2 and term.structure == "cs":
            rho = theta[f"cor({names[0]},{names[1]}|{group})"]
            D[0, 1] = D[1, 0] = rho * np.sqrt(D[0, 0] * D[1, 1])
        return D

    def R(self, theta: Mapping[str, float]) -> list[np.ndarray]:
        """R of each cluster."""
        structure, by = self.problem.structure, self.problem.by
        out = []
        for rows in self._parts:
            arm = rows["arm"].iloc[0] if by else None

            def get(name: str, arm: str | None = arm) -> float:
                return theta[_with_arm(name, arm)]

            out.append(structure.covariance(get, rows))
        return out

    def V(self, theta: Mapping[str, float]) -> np.ndarray:
        """V of all rows (n, n)."""
        n = len(self.y)
        V = np.zeros((n, n))
        for rows, R in zip(self._rows, self.R(theta), strict=True):
            V[np.ix_(rows, rows)] = R
        if self.inverse_root_weights is not None:
            V *= np.outer(self.inverse_root_weights, self.inverse_root_weights)
        for term, Z, same in zip(self.problem.terms, self._Z, self._same, strict=True):
            V += same * (Z @ self.D(theta, term) @ Z.T)
        return V

    def _is_model(self, theta: Mapping[str, float]) -> bool:
        """Whether R itself is a covariance matrix, which V may be without it."""
        if self.problem.residual != "banded Toeplitz" or not self.problem.terms:
            return True
        return all(np.linalg.eigvalsh(R)[0] > -1e-12 * np.abs(R).max() for R in self.R(theta))

    def loglik(self, theta: Mapping[str, float]) -> float:
        """Log-likelihood; -inf where V is not positive definite."""
        with np.errstate(all="ignore"):
            V = self.V(theta)
        if not np.isfinite(V).all() or not self._is_model(theta):
            return -np.inf
        scale = np.sqrt(np.maximum(np.diag(V), 1e-300))
        try:
            L = np.linalg.cholesky(V / np.outer(scale, scale))
        except np.linalg.LinAlgError:
            return -np.inf
        A = np.linalg.solve(L, np.column_stack([self.X, self.y]) / scale[:, None])
        size = np.linalg.norm(A[:, :-1], axis=0)
        p, n = len(size), len(A)
        T = np.linalg.qr(np.column_stack([A[:, :-1] / size, A[:, -1]]), mode="r")
        value = 2 * np.log(np.diag(L)).sum() + 2 * np.log(scale).sum() + T[-1, -1] ** 2
        if self.reml:
            value += 2 * (np.log(np.abs(np.diag(T)[:-1])) + np.log(size)).sum()
            n -= p
        return float(-0.5 * (value + n * np.log(2 * np.pi)))

    def checked_loglik(self, theta: Mapping[str, float]) -> float:
        """Log-likelihood, in 40 digits where V is ill-conditioned."""
        V = self.V(theta)
        scale = np.sqrt(np.diag(V))
        values = np.linalg.eigvalsh(V / np.outer(scale, scale))
        X = self.X / np.linalg.norm(self.X, axis=0)
        if values[0] * ILL_CONDITIONED > values[-1] and np.linalg.cond(X) < 1e4:
            return self.loglik(theta)
        return self._exact(V)

    def rounding(self, theta: Mapping[str, float]) -> float:
        """By how much the log-likelihood changes where theta or V change by their own last bits."""
        V, rng = self.V(theta), np.random.default_rng(0)
        known, total = self._exact(V), 0.0
        for _ in range(3):
            bits = rng.uniform(-2, 2, V.shape) * np.finfo(float).eps
            with contextlib.suppress(ValueError, ZeroDivisionError):
                total = max(total, abs(self._exact(V * (1 + (bits + bits.T) / 2)) - known))
        for name, value in theta.items():
            changes = []
            for sign in (-4, 4):
                other = {**theta, name: value * (1 + sign * np.finfo(float).eps)}
                with contextlib.suppress(ValueError, ZeroDivisionError):  # not positive definite
                    changes.append(abs(self._exact(self.V(other)) - known))
            total += max(changes, default=0.0)
        return total

    def falls_off(self, theta: Mapping[str, float]) -> bool:
        """Whether l falls in proportion to the logarithm of what is added to a nearly singular V.

        By half for each dimension in which V becomes singular and y is fitted exactly; where l has
        a limit it is level near the edge.
        """
        V, values = self.V(theta), []
        for part in ADDED:
            values.append(self._exact(V + part * np.median(np.diag(V)) * np.eye(len(V))))
        falls = -np.diff(values) / np.diff(np.log(ADDED))
        return bool(falls.min() > LEAST_FALL and falls.max() < 2 * falls.min())

    def _exact(self, V: np.ndarray) -> float:
        with mp.workdps(40):
            L = mp.cholesky(mp.matrix(V.tolist()))
            n, p = self.X.shape
            A = mp.matrix(np.column_stack([self.X, self.y]).tolist())
            for c in range(p + 1):
                for i in range(n):
                    done = mp.fsum(L[i, k] * A[k, c] for k in range(i))
                    A[i, c] = (A[i, c] - done) / L[i, i]
            R = mp.cholesky(A.T * A)
            value = mp.fsum(2 * mp.log(L[i, i]) for i in range(n)) + R[p, p] ** 2
            if self.reml:
                value += mp.fsum(2 * mp.log(R[i, i]) for i in range(p))
                n -= p
            return float(-(value + n * mp.log(2 * mp.pi)) / 2)

    def improved(self, theta: Mapping[str, float], n_starts: int, seed: int) -> float:
        """Highest log-likelihood that L-BFGS-B finds from theta and from points at random."""
        names = list(theta)
        scale = float(np.var(self.y - self.X @ np.linalg.lstsq(self.X, self.y)[0])) or 1.0
        rng = np.random.default_rng(seed)

        def deviance(free: np.ndarray) -> float:
            value = self.loglik(_natural(names, free, scale))
            return 1e10 if not np.isfinite(value) else -value

        starts = [_free(names, theta, scale)]
        starts += [_anywhere(names, rng) for _ in range(n_starts)]
        best = -np.inf
        for start in starts:
            if deviance(start) >= 1e10:
                continue
            found = minimize(
                deviance, start, method="L-BFGS-B", options={"maxfun": 60 * len(start)}
            )
            best = max(best, -found.fun)
        return best


def _with_arm(name: str, arm: str | None) -> str:
    if arm is None:
        return name.replace("{}", "").replace("<>", "")
    return name.replace("{}", f"|{arm}").replace("<>", f"{arm}:")


def _kind(name: str) -> str:
    word = name.split("(")[0]
    if word in ("range", "var"):
        return "log"
    if word == "nugget" or name.startswith("rho(t"):
        return "logit"
    if word.startswith("rho") or word == "cor":
        return "atanh"
    return "cov" if word == "cov" else "free"


def _partners(name: str, names: Sequence[str]) -> tuple[str, str]:
    """The variances of a covariance."""
    inner, _, rest = name[4:-1].partition("|")
    a, b = inner.split(",")
    if f"var({a}|{rest})" in names:
        return f"var({a}|{rest})", f"var({b}|{rest})"
    arm = f"{rest}:" if rest else ""
    return f"var(Residual|{arm}{a})", f"var(Residual|{arm}{b})"


def _natural(names: Sequence[str], free: np.ndarray, scale: float) -> dict[str, float]:
    """Theta from numbers without limits."""
    theta: dict[str, float] = {}
    for name, value in zip(names, free, strict=True):
        kind = _kind(name)
        if kind == "log":
            unit = scale if name.startswith("var") else 1.0
            theta[name] = unit * float(np.exp(np.clip(value, -30, 30)))
        elif kind == "logit":
            theta[name] = float(1 / (1 + np.exp(-np.clip(value, -30, 30))))
        else:
            theta[name] = float(np.tanh(value)) if kind in ("atanh", "cov") else float(value)
    for name in names:
        if _kind(name) == "cov":
            a, b = _partners(name, names)
            theta[name] *= np.sqrt(theta[a] * theta[b])
    return theta


def _free(names: Sequence[str], theta: Mapping[str, float], scale: float) -> np.ndarray:
    """Numbers without limits from theta, a little inside of its range."""
    out = []
    for name in names:
        value, kind = float(theta[name]), _kind(name)
        if kind == "cov":
            a, b = _partners(name, names)
            size = np.sqrt(max(theta[a] * theta[b], 1e-300))
            value, kind = value / size, "atanh"
        if kind == "log":
            unit = scale if name.startswith("var") else 1.0
            out.append(np.log(max(value / unit, 1e-12)))
        elif kind == "logit":
            value = min(max(value, 1e-9), 1 - 1e-9)
            out.append(np.log(value / (1 - value)))
        elif kind == "atanh":
            out.append(np.arctanh(np.clip(value, -1 + 1e-9, 1 - 1e-9)))
        else:
            out.append(value)
    return np.array(out)


def _anywhere(names: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    wide = {"log": 1.5, "logit": 1.5, "atanh": 0.3, "cov": 0.2, "free": 0.5}
    return np.array([rng.normal(0, wide[_kind(name)]) for name in names])
