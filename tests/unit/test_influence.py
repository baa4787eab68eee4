"""Influence beside dense algebra with the rows gone, and beside fits without them."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from dense_cases import CASES, crossed, nested, serial, slopes, unbalanced

import lmmfast as lf
from lmmfast.diagnostics import inverse_rows, inverse_sets


def without(model, rows):
    """Beta, its covariance matrix and X'V^-1 X without some rows, V as it is."""
    left = np.delete(np.arange(len(model.y)), rows)
    X, y = model.X[left], model.y[left]
    V_inv = np.linalg.inv(model.V[np.ix_(left, left)])
    C = np.linalg.inv(X.T @ V_inv @ X)
    return C @ X.T @ V_inv @ y, C


def expected(model, rows):
    """Leverage, Cook's distance, COVRATIO and DFBETAS of some rows, by definition."""
    H = model.X @ model.C @ model.X.T @ model.V_inv
    beta, C = without(model, rows)
    move = model.beta - beta
    return [
        np.trace(H[np.ix_(rows, rows)]),
        move @ np.linalg.solve(model.C, move) / len(move),
        np.linalg.det(C) / np.linalg.det(model.C),
        *(move / np.sqrt(np.diag(C))),
    ]


def beta_columns(frame):
    names = [name for name in frame if name.startswith("dfb_")]
    return frame[["leverage", "cooks_d", "covratio", *names]].to_numpy(float)


def labels_of(fit, data, factor):
    if factor in data:
        return data[factor].to_numpy()
    if factor == "batch:cask":
        return (data["batch"].astype(str) + ":" + data["cask"].astype(str)).to_numpy()
    raise AssertionError(factor)


@pytest.mark.parametrize("name", CASES)
def test_deletion_at_fixed_variance_parameters(name):
    fit, data, model = CASES[name]()
    assert model.beta == pytest.approx(fit.params.to_numpy(), rel=1e-7)
    for factor in fit._grouping:
        frame = fit.influence(factor, theta=False, refit=0)
        labels = labels_of(fit, data, factor)
        assert list(frame.index) == sorted(set(labels))
        assert frame.index.name == factor
        assert frame["rows"].to_list() == [(labels == level).sum() for level in frame.index]
        wanted = [expected(model, np.flatnonzero(labels == level)) for level in frame.index]
        np.testing.assert_allclose(beta_columns(frame), wanted, rtol=1e-9, atol=1e-11)
        assert frame["leverage"].sum() == pytest.approx(len(model.beta), rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_deletion_of_rows(name):
    fit, data, model = CASES[name]()
    frame = fit.influence("row")
    assert frame.index.equals(data.index)
    some = range(0, len(data), 7)
    wanted = [expected(model, np.array([row])) for row in some]
    np.testing.assert_allclose(beta_columns(frame.iloc[some]), wanted, rtol=1e-9, atol=1e-11)
    assert frame["leverage"].sum() == pytest.approx(len(model.beta), rel=1e-9)


def test_beta_at_fixed_theta_is_exact():
    """To rounding, where V of both sides is the same to the last bit."""
    fit, data, model = slopes()
    frame = fit.influence(theta=False, refit=0)
    for level in frame.index[:6]:
        beta, C = without(model, np.flatnonzero(data["Subject"] == level))
        dfb = frame.loc[level, [f"dfb_{name}" for name in fit.x_names]].to_numpy(float)
        np.testing.assert_allclose(
            fit.params - dfb * np.sqrt(np.diag(C)), beta, rtol=1e-11 * np.linalg.cond(model.C)
        )


def moved(fit, new):
    """What `influence` says of a fit without a group, from that fit."""
    inverse = np.linalg.inv(fit.cov_params())
    move = (fit.params - new.params).to_numpy()
    covratio = np.linalg.det(new.cov_params()) * np.linalg.det(inverse)
    return np.concatenate(
        [
            [move @ inverse @ move / len(move), covratio],
            move / new.bse,
            (fit.theta - new.theta) / fit.theta_se,
        ]
    )


def columns_of(frame):
    named = [name for name in frame if name.startswith(("dfb_", "dft_"))]
    return frame[["cooks_d", "covratio", *named]].to_numpy(float)


def test_one_step_is_exact_where_the_rest_is_balanced():
    data, formula = lf.datasets.sleepstudy(), "Reaction ~ Days + (Days | Subject)"
    fit = lf.lmm(formula, data)
    one, refits = fit.influence(refit=0), fit.influence(refit=18)
    assert not one["refitted"].any()
    assert refits["refitted"].all()
    same = [name for name in one if name.startswith(("dft", "theta"))]
    np.testing.assert_allclose(one[same], refits[same], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(one["cooks_d"], refits["cooks_d"], rtol=1e-6)
    for level in ("S308", "S335"):
        new = lf.lmm(formula, data[data["Subject"] != level])
        np.testing.assert_allclose(columns_of(refits.loc[[level]])[0], moved(fit, new), rtol=1e-5)
    assert refits.loc["S308", "dft_var(Residual)"] > 1


@pytest.mark.parametrize(
    "name, largest, of_beta",
    [
        ("slopes", 0.09, 0.003),
        ("slopes by ML", 0.09, 0.003),
        ("serial", 0.11, 0.006),
        ("marginal", 0.1, 0.009),
        ("nested serial", 0.08, 0.008),
        ("nested", 0.15, 0.25),  # without some batches there is no variance between batches
    ],
)
def test_one_step_against_refits(name, largest, of_beta):
    """Errors in standard errors: those of the algebra's prototype, and little more."""
    fit, _, _ = CASES[name]()
    one, refits = (fit.influence(refit=k).astype(float) for k in (0, 1000))
    assert refits["refitted"].all()
    theta = [column for column in one if column.startswith("dft_")]
    beta = [column for column in one if column.startswith("dfb_")]
    error, move = (one - refits)[theta].abs(), refits[theta].abs()
    assert error.max().max() < largest < 0.3 * move.max().max()
    assert error.median().max() < 0.04
    assert (one - refits)[beta].abs().max().max() < of_beta
    if name != "nested":
        fixed = fit.influence(theta=False, refit=0)
        assert (fixed - refits)[beta].abs().max().max() > 4 * of_beta
        ratio = one["covratio"] / refits["covratio"]
        assert abs(ratio - 1).max() < 0.25 * abs(fixed["covratio"] / refits["covratio"] - 1).max()


def test_refits_beside_fits_of_the_other_rows():
    fit, data, _ = serial()
    frame = fit.influence(refit=3)
    assert frame["refitted"].sum() == 3
    for level in frame.index[frame["refitted"]]:
        new = lf.lmm(
            "y ~ t + (1 | id)", data[data["id"] != level], residual=lf.AR1("t"), weights="w"
        )
        np.testing.assert_allclose(
            columns_of(frame.loc[[level]])[0], moved(fit, new), rtol=1e-4, atol=1e-5
        )


def test_refits_of_crossed_levels_and_of_rows():
    fit, data, _ = crossed()
    formula = "diameter ~ 1 + (1 | plate) + (1 | sample)"
    frame = fit.influence("sample", refit=1)
    (level,) = frame.index[frame["refitted"]]
    assert frame["cooks_d"].idxmax() == level
    new = lf.lmm(formula, data[data["sample"] != level])
    np.testing.assert_allclose(columns_of(frame.loc[[level]])[0], moved(fit, new), rtol=1e-4)
    assert frame.loc[~frame["refitted"], "theta_d"].isna().all()
    rows = fit.influence("row", refit=1)
    (row,) = rows.index[rows["refitted"]]
    new = lf.lmm(formula, data.drop(index=row))
    np.testing.assert_allclose(columns_of(rows.loc[[row]])[0], moved(fit, new), rtol=1e-4)


def test_automatic_refits_are_of_those_that_move_theta():
    fit, _, _ = slopes()
    one, auto = fit.influence(refit=0), fit.influence()
    far = one[[name for name in one if name.startswith("dft_")]].abs().max(axis=1) > 0.3
    assert 0 < far.sum() < len(far)
    assert auto["refitted"].to_list() == far.to_list()


def test_blocks_say_the_same_as_all_effects_at_once(monkeypatch):
    fit, _, _ = nested()
    at_once = {by: fit.influence(by) for by in ("batch:cask", "row")}
    monkeypatch.setattr(inverse_rows, "MAX_EFFECTS", 0)
    monkeypatch.setattr(inverse_sets, "MAX_EFFECTS", 0)
    for by, frame in at_once.items():
        pd.testing.assert_frame_equal(fit.influence(by), frame, rtol=1e-9)


def test_a_group_that_carries_a_coefficient_alone():
    data = unbalanced()
    data["alone"] = (data["Subject"] == "S309") * 1.0
    fit = lf.lmm("Reaction ~ Days + alone + (Days | Subject)", data)
    frame = fit.influence()
    assert frame.loc["S309", ["cooks_d", "covratio", "dfb_Days", "dfb_alone"]].isna().all()
    assert frame.drop(index="S309")[["cooks_d", "covratio"]].notna().all(axis=None)
    assert frame.loc["S309", "leverage"] > 1
    rows = data.assign(alone=np.arange(len(data)) == 4)
    by_row = lf.lmm("Reaction ~ Days + alone + (Days | Subject)", rows).influence("row")
    assert list(np.flatnonzero(by_row["cooks_d"].isna())) == [4]


def test_refits_without_a_level_of_a_factor_say_nothing_of_beta():
    data = unbalanced()
    data["solo"] = np.where(data["Subject"] == "S309", "a", np.where(data["Days"] % 2, "b", "c"))
    fit = lf.lmm("Reaction ~ Days + solo + (Days | Subject)", data)
    frame = fit.influence(refit=18)
    assert frame["refitted"].all()
    columns = ["cooks_d", "covratio", "dfb_Intercept", "dfb_Days", "dfb_solo[T.b]"]
    assert frame.loc["S309", columns].isna().all()
    assert frame.drop(index="S309")[columns].notna().all(axis=None)
    assert frame["dft_var(Residual)"].notna().all()


def test_on_the_boundary_the_parameter_is_held():
    fit = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff2())
    frame = fit.influence(refit=0)
    assert frame["dft_var(Intercept|Batch)"].isna().all()
    assert frame[["dft_var(Residual)", "theta_d", "cooks_d"]].notna().all(axis=None)


def test_without_fixed_effects_and_with_one_group_less():
    data = lf.datasets.sleepstudy()
    frame = lf.lmm("Reaction ~ 0 + (1 | Subject)", data).influence()
    assert frame["cooks_d"].isna().all()
    assert (frame["leverage"] == 0).all()
    assert frame["dft_var(Residual)"].notna().all()
    two = data[data["Subject"].isin(["S308", "S309"])]
    fit = lf.lmm("Reaction ~ 1 + (1 | Subject)", two)
    with pytest.warns(lf.ConvergenceWarning, match="first without S30"):
        assert not fit.influence(refit=2)["refitted"].any()


def test_left_out_rows_dropped_columns_and_arrays():
    data = unbalanced()
    data.iloc[2, data.columns.get_loc("Reaction")] = np.nan
    data["again"] = 2 * data["Days"]
    formula = "Reaction ~ Days + again + (Days | Subject)"
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm(formula, data, weights="w", missing="exclude")
    rows = fit.influence("row")
    assert rows.index.equals(data.index)
    assert list(np.flatnonzero(rows["cooks_d"].isna())) == [2]
    assert [name for name in rows if name.startswith("dfb")] == ["dfb_Intercept", "dfb_Days"]
    kept = data.dropna()
    X = np.column_stack([np.ones(len(kept)), kept["Days"]])
    arrays = lf.fit(
        kept["Reaction"].to_numpy(), X, kept["Subject"].to_numpy(), Z=X, weights=kept["w"]
    )
    np.testing.assert_allclose(
        columns_of(arrays.influence()), columns_of(fit.influence()), rtol=1e-5, atol=1e-6
    )
    assert isinstance(arrays.influence("row").index, pd.RangeIndex)


def test_refusals():
    fit, _, _ = slopes()
    with pytest.raises(lf.DataError, match="by='subject': choose one of 'row', 'Subject'"):
        fit.influence("subject")
    for refit in (-1, "all", 0.5, True):
        with pytest.raises(lf.DataError, match="give a number of refits, or 'auto'"):
            fit.influence(refit=refit)
    with pytest.raises(lf.DataError, match="influence need"):
        pickle.loads(pickle.dumps(fit)).influence()
    with pytest.raises(lf.UnsupportedModelError, match="'plate', 'sample' are crossed"):
        crossed()[0].influence()


def test_many_groups_take_seconds():
    m, n = 20_000, 4
    rng = np.random.default_rng(2)
    g, t = np.repeat(np.arange(m), n), np.tile(np.arange(n), m)
    y = rng.normal(size=m)[g] + 0.3 * rng.normal(size=m)[g] * t + rng.normal(size=m * n)
    X = np.column_stack([np.ones(m * n), t])
    fit = lf.fit(y, X, g, Z=X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = fit.influence()
    assert frame["leverage"].sum() == pytest.approx(2)
    assert not frame["refitted"].any()
    # Scores add up to nothing, so moves nearly do.
    assert abs(frame["dfb_x0"].sum()) < 0.05
