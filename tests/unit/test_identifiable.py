"""Models whose parameters the data cannot tell apart: the messages, and fits in spite of it."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import lmmfast as lf
from lmmfast.cli import main


@pytest.fixture(scope="module")
def stools() -> pd.DataFrame:
    """Nine subjects who got up once from each of four types of stool (as nlme's ergoStool)."""
    rng = np.random.default_rng(1)
    effort = 10 + np.repeat(rng.normal(size=9), 4) + rng.normal(size=36)
    subjects = np.repeat([f"S{k}" for k in range(9)], 4)
    return pd.DataFrame({"effort": effort, "Subject": subjects, "Type": list("ABCD") * 9})


# -- messages about arrays -------------------------------------------------------------------------


def _message(*args: object, **options: object) -> str:
    with pytest.raises(lf.NotIdentifiableError) as caught:
        lf.fit(*args, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_messages_about_arrays_name_what_the_user_gave(stools: pd.DataFrame) -> None:
    y, X = stools["effort"].to_numpy(), np.ones((36, 1))
    Z = pd.get_dummies(stools["Type"]).to_numpy(float)
    subject, stool = stools["Subject"], stools["Type"]
    text = _message(y, X, subject, Z=Z)
    assert "var(z3|group), var(Residual) apart: 'group' has too few rows per group" in text
    assert "(group is 'Subject', z0 is column 0 of Z, " in text
    assert text.endswith("z3 is column 3 of Z)")
    assert "group is" not in _message(y, X, subject.to_numpy(), Z=Z)
    assert "group is 'Subject'" in _message(y, X, subject.to_frame(), Z=Z)
    text = _message(y, X, subject, Z=Z, z_names=list("ABCD"), group_name="person")
    assert "var(D|person)" in text and text.endswith("(person is 'Subject')")
    text = _message(y, X, subject.to_numpy(), Z=Z, z_names=list("ABCD"), group_name="person")
    assert " is " not in text.split("structure")[-1]
    # Several factors: by their names, or by their places in the list.
    text = _message(y, X, [subject.to_numpy(), stool], Z=[None, Z])
    assert text.startswith("the data say nothing about cov(z0,z1|group2)")
    assert text.endswith("(group2 is 'Type', z0 is column 0 of its Z, z1 is column 1 of its Z)")
    text = _message(y, X, [subject.to_numpy(), stool.to_numpy()], Z=[None, Z])
    assert "(group2 is groups[1], " in text
    text = _message(y, X, stools[["Subject", "Type"]], Z=[None, Z])
    assert "cov(z0,z1|Type)" in text and "Type is" not in text


def test_messages_about_formulas_need_no_legend(stools: pd.DataFrame) -> None:
    with pytest.raises(lf.NotIdentifiableError, match=r"simpler covariance structure$"):
        lf.lmm("effort ~ Type + (Type | Subject)", stools)


# -- fits with identifiable="warn" -----------------------------------------------------------------

BIOEQUIVALENCE = "logauc ~ C(sequence) + C(period) + treatment + cs(0 + treatment | subject)"


def partial_replicate(seed: int = 0, n: int = 24) -> pd.DataFrame:
    """A partial replicate design: T is given once to each subject, R twice."""
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(n):
        sequence = ("TRR", "RTR", "RRT")[subject % 3]
        b = rng.multivariate_normal([0.0, 0.0], 0.16 * np.array([[1.0, 0.9], [0.9, 1.0]]))
        for period, treatment in enumerate(sequence, 1):
            mean = 3.0 + 0.1 * (treatment == "T") + 0.05 * period + b[int(treatment == "T")]
            y = mean + rng.normal() * (0.2 if treatment == "T" else 0.25)
            rows.append((f"s{subject:02d}", sequence, period, treatment, y))
    return pd.DataFrame(rows, columns=["subject", "sequence", "period", "treatment", "logauc"])


def _dense(d: pd.DataFrame, covariances: np.ndarray, reml: bool):
    """Log-likelihood, beta and its standard errors at var(R), cov(R, T), total var of T, var_R."""
    R, RT, T, within = covariances
    X = np.column_stack(
        [
            np.ones(len(d)),
            *(d["sequence"] == s for s in ("RTR", "TRR")),
            *(d["period"] == k for k in (2, 3)),
            d["treatment"] == "T",
        ]
    ).astype(float)
    y, n, p = d["logauc"].to_numpy(), len(d), X.shape[1]
    V = np.zeros((n, n))
    subjects, is_T = d["subject"].to_numpy(), (d["treatment"] == "T").to_numpy()
    same = subjects[:, None] == subjects
    V[same] = np.where(is_T[:, None] & is_T, T, np.where(is_T[:, None] | is_T, RT, R))[same]
    V[np.diag_indices(n)] += np.where(is_T, 0.0, within)
    try:
        logdet = 2 * np.log(np.diag(np.linalg.cholesky(V))).sum()
    except np.linalg.LinAlgError:
        return -np.inf, None, None
    S = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(S, X.T @ np.linalg.solve(V, y))
    r = y - X @ beta
    value = n * np.log(2 * np.pi) + logdet + r @ np.linalg.solve(V, r)
    if reml:
        value += np.linalg.slogdet(S)[1] - p * np.log(2 * np.pi)
    return -value / 2, beta, np.sqrt(np.diag(np.linalg.inv(S)))


@pytest.mark.parametrize("reml", [True, False])
def test_the_replicate_model_of_bioequivalence(reml: bool) -> None:
    d = partial_replicate(4, 15)
    with pytest.raises(lf.NotIdentifiableError):
        lf.lmm(BIOEQUIVALENCE, d, residual=lf.ByGroup("treatment"), reml=reml)
    with pytest.warns(lf.NotIdentifiableWarning, match=r"var\(treatment\[T\]\|subject\)"):
        fit = lf.lmm(
            BIOEQUIVALENCE,
            d,
            residual=lf.ByGroup("treatment"),
            reml=reml,
            identifiable="warn",
            n_starts=2,
        )
    theta = fit.theta
    R, T = theta["var(treatment[R]|subject)"], theta["var(treatment[T]|subject)"]
    cor = theta["cor(treatment[R],treatment[T]|subject)"]
    within = theta["var(Residual|R)"]
    total = T + theta["var(Residual|T)"]
    at = np.array([R, cor * np.sqrt(R * T), total, within])
    value, beta, errors = _dense(d, at, reml)
    assert fit.llf == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(fit.params, beta, rtol=1e-9)
    np.testing.assert_allclose(fit.bse, errors, rtol=1e-9)
    # The dense maximum, in what is identified.
    found = minimize(
        lambda x: -_dense(d, x, reml)[0],
        0.9 * at,
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000},
    )
    assert fit.llf == pytest.approx(-found.fun, abs=1e-8)
    np.testing.assert_allclose(at, found.x, rtol=1e-4)
    # What is known has a standard error, that of the observed or expected information; parts none.
    assert fit.certificate.status == (
        "converged; not separable: only var(treatment[T]|subject) + var(Residual|T), "
        "not cor(treatment[R],treatment[T]|subject)"
    )
    table = fit.variance_table()
    known = table.index.isin(["var(treatment[R]|subject)", "var(Residual|R)", table.index[-1]])
    assert list(np.isfinite(table["std_error"])) == list(known)
    assert table.index[-1] == "var(treatment[T]|subject) + var(Residual|T)"
    assert table["estimate"].iloc[-1] == pytest.approx(total, rel=1e-12)
    assert fit.identified_sums.equals(table.tail(1))
    errors = _dense_errors(d, at, reml)
    expected = dict(zip(table.index[known], errors[[0, 3, 2]], strict=True))
    for name, error in expected.items():
        assert table.loc[name, "std_error"] == pytest.approx(error, rel=1e-5)
    # The middle: what the covariance leaves of the sum is halved.
    assert theta["var(Residual|T)"] == pytest.approx((total - at[1] ** 2 / R) / 2, rel=1e-6)
    assert fit.n_params == 6 + 4


def test_where_the_sum_is_at_an_end_of_its_range() -> None:
    """The covariance asks for all of the sum: nothing is left for the residuals of T."""
    d = partial_replicate(0, 15)
    with pytest.warns(lf.NotIdentifiableWarning, match="on the boundary: the correlation"):
        fit = lf.lmm(
            BIOEQUIVALENCE, d, residual=lf.ByGroup("treatment"), identifiable="warn", n_starts=1
        )
    R, T, _, within, _ = fit.theta
    found = minimize(
        lambda x: -_dense(d, np.array([x[0], x[1], x[1] ** 2 / x[0], x[2]]), True)[0],
        [R, np.sqrt(R * T), within],
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 2000},
    )
    assert fit.llf == pytest.approx(-found.fun, abs=1e-6)
    np.testing.assert_allclose([R, np.sqrt(R * T), within], found.x, rtol=1e-4)
    assert fit.theta_se.iloc[[0, 1, 2, 4]].isna().all()


def _dense_errors(d: pd.DataFrame, at: np.ndarray, reml: bool) -> np.ndarray:
    """Standard errors of the identified parameters from the dense expected information."""
    subjects, is_T = d["subject"].to_numpy(), (d["treatment"] == "T").to_numpy()
    same = subjects[:, None] == subjects
    both, one = is_T[:, None] & is_T, is_T[:, None] ^ is_T
    dV = [
        (same & ~both & ~one).astype(float),
        (same & one).astype(float),
        (same & both).astype(float),
        np.diag((~is_T).astype(float)),
    ]
    V = sum(value * E for value, E in zip(at, dV, strict=True))
    X = pd.get_dummies(
        d[["sequence", "period", "treatment"]], columns=["sequence", "period", "treatment"]
    )
    X = np.column_stack([np.ones(len(d)), X.to_numpy(float)])
    X = X[:, [0, 2, 3, 5, 6, 8]]
    P = np.linalg.inv(V)
    if reml:
        PX = P @ X
        P = P - PX @ np.linalg.solve(X.T @ PX, PX.T)
    info = np.array([[0.5 * np.trace(P @ A @ P @ B) for B in dV] for A in dV])
    return np.sqrt(np.diag(np.linalg.inv(info)))


def test_another_way_to_write_the_model_gives_the_same(stools: pd.DataFrame) -> None:
    """Unstructured D of two treatments is that of cs, but has a covariance, which is known."""
    d = partial_replicate(1)
    options = {"residual": lf.ByGroup("treatment"), "identifiable": "warn", "n_starts": 1}
    with pytest.warns(lf.NotIdentifiableWarning):
        fit = lf.lmm(BIOEQUIVALENCE, d, **options)
        other = lf.lmm(BIOEQUIVALENCE.replace("cs(", "("), d, **options)
        ordered = lf.lmm(
            BIOEQUIVALENCE, d.assign(treatment=d["treatment"].map({"T": "A", "R": "B"})), **options
        )
    assert other.llf == pytest.approx(fit.llf, abs=1e-9)
    assert ordered.llf == pytest.approx(fit.llf, abs=1e-9)
    np.testing.assert_allclose(other.cov_re, fit.cov_re, rtol=1e-5)
    # With T as the first level both residual variances depend on what is searched for T.
    np.testing.assert_allclose(ordered.cov_re.to_numpy()[::-1, ::-1], fit.cov_re, rtol=1e-5)
    errors = ordered.variance_table()["std_error"]
    assert errors["var(Residual|B)"] == pytest.approx(
        fit.variance_table()["std_error"]["var(Residual|R)"], rel=1e-5
    )
    assert np.isnan(errors["var(Residual|A)"])
    covariance = "cov(treatment[R],treatment[T]|subject)"
    assert np.isfinite(other.variance_table().loc[covariance, "std_error"])


def test_a_row_to_each_group_is_a_linear_model() -> None:
    rng = np.random.default_rng(0)
    d = pd.DataFrame({"x": rng.normal(size=40), "id": np.arange(40)})
    d["y"] = 5 + d["x"] + rng.normal(size=40)
    X = np.column_stack([np.ones(40), d["x"]])
    beta, (rss,), *_ = np.linalg.lstsq(X, d["y"], rcond=None)
    for reml, engine, df in [(True, "auto", 38), (False, "auto", 40), (True, "reference", 38)]:
        with pytest.warns(lf.NotIdentifiableWarning):
            fit = lf.lmm("y ~ x + (1 | id)", d, reml=reml, engine=engine, identifiable="warn")
        np.testing.assert_allclose(fit.theta, rss / df / 2, rtol=1e-6)
        np.testing.assert_allclose(fit.params, beta, rtol=1e-9)
        covariance = rss / df * np.linalg.inv(X.T @ X)
        np.testing.assert_allclose(fit.cov_params(), covariance, rtol=1e-9)
        (known,) = fit.identified_sums.to_dict("index").values()
        assert known["estimate"] == pytest.approx(rss / df, rel=1e-9)
        assert known["std_error"] == pytest.approx(np.sqrt(2 / df) * rss / df, rel=1e-8)
        assert fit.theta_se.isna().all()
        assert "only var(Intercept|id) + var(Residual)" in str(fit.summary())


def test_equal_factors_share_one_variance() -> None:
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"g": np.repeat(np.arange(30), 4)})
    d["h"], d["k"] = -d["g"], d["g"] + 7
    d["y"] = np.repeat(rng.normal(size=30), 4) + rng.normal(size=120)
    one = lf.lmm("y ~ 1 + (1 | g)", d)
    formulas = {"y ~ 1 + (1 | g) + (1 | h)": 2, "y ~ 1 + (1 | g) + (1 | h) + (1 | k)": 3}
    for formula, n in formulas.items():
        with pytest.warns(lf.NotIdentifiableWarning, match="only .*g. . var.Intercept.h.( .|$)"):
            fit = lf.lmm(formula, d, identifiable="warn")
        assert fit.llf == pytest.approx(one.llf, abs=1e-9)
        assert fit.n_params == one.n_params
        np.testing.assert_allclose(fit.theta.iloc[:-1], one.theta.iloc[0] / n, rtol=1e-5)
        known = fit.identified_sums
        assert known["estimate"].iloc[0] == pytest.approx(one.theta.iloc[0], rel=1e-6)
        assert known["std_error"].iloc[0] == pytest.approx(one.theta_se.iloc[0], rel=1e-5)
        assert fit.theta_se.iloc[-1] == pytest.approx(one.theta_se.iloc[-1], rel=1e-6)
    with pytest.raises(lf.NotIdentifiableError, match="apart"):
        lf.lmm("y ~ 1 + (1 | g) + (1 | h)", d)


def test_a_covariance_of_which_the_data_say_nothing(stools: pd.DataFrame) -> None:
    """Each stool has its own variance between subjects; no subject has two rows of one stool."""
    d = pd.concat([stools, stools.assign(effort=stools["effort"] + np.tile([0.3, -0.4, 0.1], 12))])
    d["half"] = np.where(d["Subject"] < "S5", "a", "b")
    with pytest.warns(lf.NotIdentifiableWarning, match=r"nothing of cov\(half\[a\],half\[b\]"):
        fit = lf.lmm("effort ~ half + (0 + half | Subject)", d, identifiable="warn")
    other = lf.lmm("effort ~ half + (0 + half || Subject)", d)
    assert fit.llf == pytest.approx(other.llf, abs=1e-9)
    assert fit.theta.iloc[1] == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(fit.theta.iloc[[0, 2, 3]], other.theta, rtol=1e-6)
    np.testing.assert_allclose(fit.theta_se.iloc[[0, 2, 3]], other.theta_se, rtol=1e-6)
    assert len(fit.identified_sums) == 0 and np.isnan(fit.theta_se.iloc[1])


def test_such_fits_are_fits() -> None:
    d = partial_replicate(2)
    options = {"residual": lf.ByGroup("treatment"), "identifiable": "warn", "n_starts": 1}
    with pytest.warns(lf.NotIdentifiableWarning):
        fit = lf.lmm(BIOEQUIVALENCE, d, **options)
        again = fit.refit(10 * d["logauc"])
    np.testing.assert_allclose(
        again.identified_sums["estimate"], 100 * fit.identified_sums["estimate"], rtol=1e-6
    )
    kept = pickle.loads(pickle.dumps(fit))
    assert kept.variance_table().equals(fit.variance_table())
    assert kept.identified_sums.equals(fit.identified_sums)
    assert str(kept.summary()) == str(fit.summary())
    assert "Known is var(treatment[T]|subject) + var(Residual|T) = " in str(fit.summary()).replace(
        "\n  ", " "
    )
    rows = pd.DataFrame({"y": np.arange(12.0) ** 2 % 7, "g": np.arange(12)})
    with pytest.warns(lf.NotIdentifiableWarning):
        first = lf.lmm("y ~ 1 + (1 | g)", rows[:8], identifiable="warn")
        longer = first.append(rows[8:])
        whole = lf.lmm("y ~ 1 + (1 | g)", rows, identifiable="warn")
    assert longer.llf == pytest.approx(whole.llf, abs=1e-10)
    # With more rows a group the parts become known.
    more = pd.concat([rows[8:], rows[:8].assign(y=rows["y"] + np.tile([1.0, -1.0], 6))])
    found = first.append(more)
    assert found.identified_sums.empty and np.isfinite(found.theta_se.iloc[-1])


def test_the_choice_is_made_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(5)
    d = pd.DataFrame({"y": rng.normal(size=60), "g": np.arange(60), "part": np.arange(60) % 2})
    with pytest.warns(lf.LmmWarning):
        refused = lf.lmm_by("y ~ 1 + (1 | g)", d, "part")
        fits = lf.lmm_by("y ~ 1 + (1 | g)", d, "part", identifiable="warn")
    assert len(refused.failed) == 2
    assert fits.converged.all() and "not separable" in fits.status[0]
    with pytest.warns(lf.NotIdentifiableWarning):
        arrays = lf.fit(d["y"], np.ones((60, 1)), d["g"], identifiable="warn")
    Y = np.column_stack([d["y"], np.ones(60), 3 * d["y"] + 1])
    with pytest.raises(lf.NotIdentifiableError):
        lf.fit_many(Y[:, [0, 2]], np.ones((60, 1)), d["g"])
    with pytest.warns(lf.NotIdentifiableWarning), pytest.warns(lf.ConvergenceWarning):
        many = lf.fit_many(Y, np.ones((60, 1)), d["g"], identifiable="warn")
    assert many.llf[0] == pytest.approx(arrays.llf, abs=1e-9)
    np.testing.assert_allclose(many.theta[[0, 2]], [arrays.theta, 9 * arrays.theta], rtol=1e-6)
    assert many.status[0] == arrays.certificate.status and "constant" in many.status[1]
    assert many[2].n_params == arrays.n_params and np.isnan(many.llf[1])
    np.testing.assert_allclose(many.bse[0], arrays.bse, rtol=1e-9)
    path = tmp_path / "d.csv"
    d.to_csv(path, index=False)
    assert main(["fit", "y ~ 1 + (1 | g)", str(path)]) == 1
    capsys.readouterr()
    assert main(["fit", "y ~ 1 + (1 | g)", str(path), "--identifiable", "warn", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "not separable" in printed.err
    assert found["llf"] == pytest.approx(arrays.llf, abs=1e-9)
    assert found["theta_se"] == {"var(Intercept|g)": None, "var(Residual)": None}
    (known,) = found["identified_sums"].values()
    assert known["estimate"] == pytest.approx(d["y"].var(), rel=1e-9)
    with pytest.raises(lf.DataError, match="choose 'raise' or 'warn'"):
        lf.lmm("y ~ 1 + (1 | g)", d, identifiable="no")


# -- variances that the fixed effects leave nothing of ---------------------------------------------

_TAKEN = [
    ("y ~ site + (1 | site)", {}),
    ("y ~ site + (x | site)", {}),
    ("y ~ site + (1 | site) + (1 | b)", {}),
    ("y ~ site + (1 | site / id)", {}),
    ("y ~ site + (1 | site / id)", {"residual": lf.AR1("t")}),
    ("y ~ site + (1 | site) + (1 | id)", {"residual": lf.ByGroup("arm")}),
    ("y ~ site + (1 | site) + (1 | b)", {"engine": "reference"}),
]


@pytest.fixture(scope="module")
def sites() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 120
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "t": np.tile(np.arange(4), 30),
            "arm": np.repeat(["a", "b"], 60),
            "site": np.repeat(["s", "u", "v"], 40),
            "id": np.repeat(np.arange(30), 4),
            "b": np.tile(np.arange(8), 15),
        }
    )


@pytest.mark.filterwarnings("ignore::lmmfast.NestingWarning")
@pytest.mark.parametrize(("formula", "options"), _TAKEN)
def test_fixed_effects_leave_nothing_of_a_variance(
    sites: pd.DataFrame, formula: str, options: dict
) -> None:
    """REML knows nothing of the variance of a factor that is in X too; it was called converged."""
    with pytest.raises(
        lf.NotIdentifiableError,
        match=r"nothing about var\(Intercept\|site\): the fixed effects already explain all",
    ):
        lf.lmm(formula, sites, **options)
    if options.get("engine") == "reference":
        return
    with pytest.warns(lf.NotIdentifiableWarning):
        fit = lf.lmm(formula, sites, identifiable="warn", **options)
    assert "nothing of var(Intercept|site)" in fit.certificate.status
    assert np.isnan(fit.theta_se["var(Intercept|site)"])
    # The restricted likelihood is that of the model without this variance.
    without = formula.replace("site / id", "id").replace("(1 | site) + ", "")
    if without != formula:
        assert fit.llf == pytest.approx(lf.lmm(without, sites, **options).llf, abs=1e-7)
