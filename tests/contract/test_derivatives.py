"""Score and information beside finite differences and dense algebra; structures likewise."""

import numpy as np
import pytest
from samples import COVARIANCES, LEVELS, STRUCTURES, random_phi, sample
from scipy.linalg import block_diag

from lmmfast.search.objective import Evaluation, Problem

CORE = list(LEVELS.values())[-1]
every_covariance = pytest.mark.parametrize("name", COVARIANCES)
reml_and_ml = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
every_structure = pytest.mark.parametrize(
    ("structure", "q"),
    [
        pytest.param(structure, q, id=f"{name}-{q}")
        for name, structure in STRUCTURES.items()
        for q in (1, 2, 3, 5)
        if q > 1 or not name.startswith("cs")
    ],
)


def derivative(f, x, step=1e-3):
    """Central differences of order eight by each entry of x; last axis of the answer: x."""
    weights = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280]) / step
    columns = []
    for e in np.eye(len(x)) * step:
        pairs = [f(x + k * e) - f(x - k * e) for k in range(1, 5)]
        columns.append(sum(w * pair for w, pair in zip(weights, pairs, strict=True)))
    return np.stack(columns, axis=-1)


class Case:
    """A small data set with all structures' worth of columns in Z."""

    def __init__(self, name: str, reml: bool) -> None:
        self.covariance = COVARIANCES[name]
        rng = np.random.default_rng(11)
        sizes = [4, 9, 1, 7, 3, 8, 2, 6, 5, 40, 5, 7]
        self.data = sample(rng, sizes, self.covariance.q, 3, weights=True)
        self.problem = Problem(np.arange(3), len(self.data.y), reml)
        self.packed, self.sums = self.data.compressed(CORE)
        self.phi = random_phi(self.covariance, rng)

    def at(self, Lambda, kr=False) -> Evaluation:
        """Evaluation at a root of D that need not be triangular."""
        from lmmfast.engines.totals import unflatten

        q, p1 = self.data.q, self.data.p1
        flat = CORE.evaluate(self.packed, q, p1, Lambda, self.sums.perp, kr, 1)
        return Evaluation(self.problem, unflatten(flat, q, p1, kr))

    def at_phi(self, phi, kr=False) -> Evaluation:
        return self.at(self.covariance.Lambda(phi), kr)

    def at_vech(self, vech_D, kr=False) -> Evaluation:
        D = np.zeros((self.covariance.q,) * 2)
        row, column = self.covariance.pairs
        D[row, column] = D[column, row] = vech_D
        return self.at(np.linalg.cholesky(D), kr)


@every_covariance
@reml_and_ml
def test_score_by_phi(name, reml):
    case = Case(name, reml)
    score = case.covariance.jacobian(case.phi) @ case.at_phi(case.phi).score
    want = derivative(lambda phi: case.at_phi(phi).loglik, case.phi)
    np.testing.assert_allclose(score, want, rtol=0, atol=2e-9 * max(1, np.abs(want).max()))


@every_covariance
@reml_and_ml
def test_observed_info_by_vech_D(name, reml):
    """Of the profiled likelihood, on all of vech(D) whatever the structure."""
    case = Case(name, reml)
    rng = np.random.default_rng(12)
    G = rng.uniform(-0.5, 0.5, (case.covariance.q,) * 2)
    vech_D = (G @ G.T + np.eye(len(G)))[case.covariance.pairs]
    got = case.at_vech(vech_D, kr=True).observed_info
    want = -derivative(lambda v: case.at_vech(v).score, vech_D, step=5e-3)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-8 * np.abs(want).max())


@every_covariance
@reml_and_ml
def test_hessian_by_phi(name, reml):
    """J' I J less the curvature of D(phi) along the score: what the search inverts."""
    case = Case(name, reml)
    c = case.covariance

    def gradient(phi):
        return c.jacobian(phi) @ case.at_phi(phi).score

    evaluation = case.at_phi(case.phi, kr=True)
    J = c.jacobian(case.phi)
    got = J @ evaluation.observed_info @ J.T - c.bend(case.phi, evaluation.score)
    want = -derivative(gradient, case.phi)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-8 * np.abs(want).max())


@every_covariance
@reml_and_ml
def test_joint_info_and_score(name, reml):
    """1/2 tr(P dV P dV) and the score for (vech(D), sigma2), with all rows in one dense V."""
    case = Case(name, reml)
    data, q = case.data, case.covariance.q
    D = case.covariance.Lambda(case.phi)
    D = D @ D.T
    parts = [slice(a, b) for a, b in zip(data.ptr[:-1], data.ptr[1:], strict=True)]
    row, column = case.covariance.pairs
    dV = []
    for i, j in zip(row, column, strict=True):
        E = np.zeros((q, q))
        E[i, j] = E[j, i] = 1.0
        dV.append(block_diag(*[data.Z[rows] @ E @ data.Z[rows].T for rows in parts]))
    dV.append(np.diag(1.0 / data.weights))
    V = block_diag(*[data.Z[rows] @ D @ data.Z[rows].T for rows in parts]) + dV[-1]
    V_inv = np.linalg.inv(V)
    V_inv_X = V_inv @ data.X
    P = V_inv - V_inv_X @ np.linalg.solve(data.X.T @ V_inv_X, V_inv_X.T)
    weight = P if reml else V_inv
    info = 0.5 * np.array([[np.trace(weight @ a @ weight @ b) for b in dV] for a in dV])
    Py = P @ data.y
    evaluation = case.at_phi(case.phi, kr=True)
    got = evaluation.joint_info(D[case.covariance.pairs])
    np.testing.assert_allclose(got, info, rtol=0, atol=1e-11 * np.abs(info).max())
    # In units of sigma2, at the sigma2 that maximises the likelihood at this D.
    sigma2 = evaluation.sigma2
    assert sigma2 == pytest.approx(data.y @ Py / case.problem.df, rel=1e-12)
    score = 0.5 * np.array([Py @ a @ Py / sigma2 - np.trace(weight @ a) for a in dV])
    got = evaluation.joint_score(D[case.covariance.pairs])
    np.testing.assert_allclose(got, score, rtol=0, atol=1e-10 * np.abs(info).max())


@every_covariance
@reml_and_ml
def test_profile_info_is_the_schur_complement(name, reml):
    case = Case(name, reml)
    Lambda = case.covariance.Lambda(case.phi)
    evaluation = case.at_phi(case.phi, kr=True)
    vech_D = (Lambda @ Lambda.T)[case.covariance.pairs]
    # Profiling at fixed Ddot: the parameter is (Ddot, log sigma2).
    joint = evaluation.joint_info(vech_D)
    change = np.eye(len(joint))
    change[-1, :-1] = vech_D  # d(D, sigma2) / d log(sigma2) = (D, sigma2)
    joint = change @ joint @ change.T
    want = joint[:-1, :-1] - np.outer(joint[:-1, -1], joint[-1, :-1]) / joint[-1, -1]
    np.testing.assert_allclose(
        evaluation.profile_info, want, rtol=0, atol=1e-11 * np.abs(want).max()
    )


@reml_and_ml
def test_loglik_is_the_normal_density(reml):
    """With all constants, against scipy's multivariate normal; REML through error contrasts."""
    from scipy.linalg import null_space
    from scipy.stats import multivariate_normal

    case = Case("unstructured-2", reml)
    data = case.data
    Lambda = case.covariance.Lambda(case.phi)
    evaluation = case.at_phi(case.phi)
    parts = [slice(a, b) for a, b in zip(data.ptr[:-1], data.ptr[1:], strict=True)]
    ZL = block_diag(*[data.Z[rows] @ Lambda for rows in parts])
    V = evaluation.sigma2 * (ZL @ ZL.T + np.diag(1.0 / data.weights))
    if reml:
        K = null_space(data.X.T)
        want = multivariate_normal(cov=K.T @ V @ K).logpdf(K.T @ data.y)
        want -= 0.5 * np.linalg.slogdet(data.X.T @ data.X)[1]
    else:
        want = multivariate_normal(data.X @ evaluation.beta, V).logpdf(data.y)
    # The engine leaves the logarithms of the weights to the caller.
    assert evaluation.loglik + 0.5 * case.sums.log_weights == pytest.approx(want, rel=1e-12)


# -- structures ------------------------------------------------------------------------------------


def ordinary_phi(structure, q):
    return np.random.default_rng(q).uniform(0.3, 1.2, structure.n_params(q))


@every_structure
def test_derivatives_of_D(structure, q):
    phi = ordinary_phi(structure, q)

    def D(phi):
        Lambda = structure.Lambda(phi, q)
        return Lambda @ Lambda.T

    first = np.moveaxis(derivative(D, phi), -1, 0)
    np.testing.assert_allclose(structure.d_D(phi, q), first, rtol=0, atol=1e-11)
    second = np.moveaxis(derivative(lambda phi: structure.d_D(phi, q), phi), -1, 0)
    np.testing.assert_allclose(structure.d2_D(phi, q), second, rtol=0, atol=1e-11)


@every_structure
def test_phi_is_the_inverse_of_D(structure, q):
    Lambda = structure.Lambda(ordinary_phi(structure, q), q)
    D = Lambda @ Lambda.T
    again = structure.Lambda(structure.phi(D), q)
    np.testing.assert_allclose(again @ again.T, D, rtol=0, atol=1e-14)
    assert len(structure.phi(D)) == structure.n_params(q)


@every_structure
def test_phi_of_singular_D(structure, q):
    """Zero, and the boundary of each structure, come back as they are."""
    for phi in (np.zeros(structure.n_params(q)), np.eye(structure.n_params(q))[0]):
        Lambda = structure.Lambda(phi, q)
        D = Lambda @ Lambda.T
        again = structure.Lambda(structure.phi(D), q)
        np.testing.assert_allclose(again @ again.T, D, rtol=0, atol=1e-15)


@every_structure
def test_natural_parameters(structure, q):
    """natural_basis is the derivative of D by them; names and numbers match."""
    phi = ordinary_phi(structure, q)

    def D(phi):
        Lambda = structure.Lambda(phi, q)
        return Lambda @ Lambda.T

    by_phi = derivative(lambda phi: structure.natural(D(phi)), phi)  # (natural, phi)
    chained = np.einsum("nij,nk->kij", structure.natural_basis(D(phi)), by_phi)
    np.testing.assert_allclose(chained, structure.d_D(phi, q), rtol=0, atol=1e-11)
    names = structure.natural_names(tuple(f"z{k}" for k in range(q)), "g")
    assert len(names) == len(set(names)) == structure.n_params(q)
    if structure.linear:
        D_again = np.einsum("n,nij->ij", structure.natural(D(phi)), structure.natural_basis(D(phi)))
        np.testing.assert_allclose(D_again, D(phi), rtol=0, atol=1e-14)


@every_structure
def test_D_keeps_to_its_structure(structure, q):
    """Positive semidefinite, with the pattern that the structure's name promises."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        phi = np.abs(rng.standard_normal(structure.n_params(q)))
        Lambda = structure.Lambda(phi, q)
        D = Lambda @ Lambda.T
        assert np.linalg.eigvalsh(D)[0] >= -1e-14
        off = D[np.tril_indices(q, -1)]
        if structure.name in ("diagonal", "identity"):
            assert not off.any()
        if structure.name in ("identity", "compound symmetry"):
            np.testing.assert_allclose(np.diag(D), D[0, 0])
        if "compound symmetry" in structure.name:
            sd = np.sqrt(np.diag(D))
            correlations = off / np.outer(sd, sd)[np.tril_indices(q, -1)]
            np.testing.assert_allclose(correlations, correlations[0], rtol=0, atol=1e-12)
