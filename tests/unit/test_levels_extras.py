"""Comparing, copying, saving, segments and the command line with several grouping factors."""

import copy
import json
import pickle

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.cli import as_json, main
from lmmfast.prediction.effects import LevelsResult
from lmmfast.report.text import WIDTH

PASTES, PENICILLIN = lf.datasets.pastes(), lf.datasets.penicillin()
TRIAL = lf.datasets.multicentre()


@pytest.fixture(scope="module")
def batches():
    return lf.lmm("strength ~ 1 + (1 | batch)", PASTES)


@pytest.fixture(scope="module")
def casks():
    return lf.lmm("strength ~ 1 + (1 | batch/cask)", PASTES)


@pytest.fixture(scope="module")
def trial():
    return lf.lmm("sbp ~ arm * month + (1 | center) + (1 + month | center:patient)", TRIAL)


# -- compare -------------------------------------------------------------------------------------


def test_one_factor_within_two(batches, casks):
    table = lf.compare(batches, casks)
    assert table["df"].to_list() == [pd.NA, 1]
    assert table["chisq"].iloc[1] == pytest.approx(2 * (casks.llf - batches.llf))
    assert table["note"].iloc[1] == "conservative: variance 0 in the smaller model"
    assert lf.compare(casks, batches)["df"].iloc[1] == 1
    assert lf.compare(pickle.loads(pickle.dumps(batches)), casks)["df"].iloc[1] == 1


def test_inner_factor_alone_is_within_both(casks):
    inner = lf.lmm("strength ~ 1 + (1 | batch:cask)", PASTES)
    assert lf.compare(inner, casks)["df"].iloc[1] == 1


def test_other_factors_are_not_nested():
    one = lf.lmm("sbp ~ arm + (1 | center)", TRIAL)
    others = lf.lmm("sbp ~ arm + (1 | center:patient) + (1 | month)", TRIAL)
    note = lf.compare(one, others)["note"].iloc[1]
    assert note == "not known to be nested: covariance models"


def test_slopes_belong_to_their_factor(trial):
    fits = [
        lf.lmm(f"sbp ~ arm * month + {random}", TRIAL)
        for random in (
            "(1 | center)",
            "(1 | center/patient)",
            "(1 + month | center) + (1 | center:patient)",
        )
    ]
    table = lf.compare([*fits[:2], trial])
    assert table["df"].to_list() == [pd.NA, 1, 2]
    assert lf.compare(fits[1], fits[2])["df"].iloc[1] == 2
    note = lf.compare(fits[2], trial)["note"].iloc[1]
    assert note == "not nested: as many parameters"
    both = lf.lmm("sbp ~ arm * month + (1 + month | center/patient)", TRIAL)
    assert lf.compare(fits[2], both)["df"].iloc[1] == 2
    assert lf.compare(trial, both)["df"].iloc[1] == 2


def test_crossed_factors():
    plate = lf.lmm("diameter ~ 1 + (1 | plate)", PENICILLIN)
    both = lf.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", PENICILLIN)
    assert lf.compare(plate, both)["df"].iloc[1] == 1


def test_columns_of_one_name_by_factor():
    """Columns of Z that are called the same in two factors are two columns."""
    center, t = TRIAL["center"], TRIAL["month"].to_numpy(float)
    unit = center.astype(str) + TRIAL["patient"].astype(str)
    X, Z = np.column_stack([np.ones(len(t)), t]), [t[:, None], np.ones((len(t), 1))]
    groups = {"center": center, "unit": unit}
    big = lf.fit(TRIAL["sbp"], X, groups=groups, Z=Z, z_names=[["z"], ["z"]])
    small = lf.fit(TRIAL["sbp"], X, center, Z=Z[0], z_names=["z"], group_name="center")
    assert lf.compare(small, big)["df"].iloc[1] == 1


# -- copying and saving --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pickle", "remove_data"])
def test_without_the_data(trial, kind):
    bare = pickle.loads(pickle.dumps(trial)) if kind == "pickle" else copy.copy(trial).remove_data()
    assert isinstance(bare, LevelsResult)
    assert (bare.ngroups, bare.group_sizes) == (trial.ngroups, trial.group_sizes)
    assert bare.nested_in == {"center": [], "center:patient": ["center"]}
    for name, frame in trial.random_effects.items():
        pd.testing.assert_frame_equal(bare.random_effects[name], frame)
    pd.testing.assert_frame_equal(bare.variance_table(), trial.variance_table())
    new = TRIAL.iloc[::50]
    for level in ("population", "center", "conditional"):
        pd.testing.assert_series_equal(
            bare.predict(new, level=level), trial.predict(new, level=level)
        )
    assert str(bare.summary()) == str(trial.summary())
    for needs in (
        lambda: bare.fittedvalues,
        lambda: bare.random_effects_cov,
        lambda: bare.implied_covariance("C01"),
        lambda: bare.acf("month"),
        lambda: bare.refit(TRIAL["sbp"]),
        lambda: bare.append(TRIAL),
    ):
        with pytest.raises(lf.DataError, match="need the data"):
            needs()
    assert trial.fittedvalues.notna().all()


def test_copies_share_the_data(trial):
    for new in (copy.copy(trial), copy.deepcopy(trial)):
        assert isinstance(new, LevelsResult)
        assert new.acf("month")["pairs"].sum() > 0
        assert new.llf == trial.llf


# -- other ways to fit ---------------------------------------------------------------------------


def test_refit(casks):
    y = PASTES["strength"] ** 2
    again = casks.refit(y)
    anew = lf.lmm("y ~ 1 + (1 | batch/cask)", PASTES.assign(y=y))
    assert isinstance(again, LevelsResult)
    assert again.llf == pytest.approx(anew.llf, abs=1e-8)
    np.testing.assert_allclose(again.theta, anew.theta, rtol=1e-5)


def test_append_is_refused(casks):
    with pytest.raises(lf.UnsupportedModelError, match="several grouping factors"):
        casks.append(PASTES)


def test_many_responses_are_refused():
    groups = [PASTES["batch"], PASTES["cask"]]
    Y = np.column_stack([PASTES["strength"]] * 2)
    with pytest.raises(lf.UnsupportedModelError, match="one grouping factor, and groups has 2"):
        lf.fit_many(Y, np.ones((60, 1)), groups)


@pytest.mark.parametrize("random", ["(1 | center/patient)", "(1 | center:patient) + (1 | month)"])
def test_segments(random):
    formula = f"sbp ~ arm + {random}"
    data = TRIAL[TRIAL["center"].cat.codes < 12]
    fits = lf.lmm_by(formula, data.assign(odd=data["center"].cat.codes % 2), by="odd")
    assert list(fits.ngroups.columns) == list(fits.fit(0).ngroups)
    for odd in (0, 1):
        single = lf.lmm(formula, data[data["center"].cat.codes % 2 == odd])
        assert fits.llf[odd] == single.llf
        np.testing.assert_array_equal(fits.params.loc[odd], single.params)
        np.testing.assert_array_equal(fits.theta.loc[odd], single.theta)
        assert fits.ngroups.loc[odd].to_dict() == single.ngroups
        assert fits.nobs[odd] == single.nobs


def test_a_segment_that_cannot_be_fitted():
    data = PASTES.assign(part=np.where(PASTES["batch"] == "A", "one", "rest"))
    with pytest.warns(lf.LmmWarning, match="have no fit"):
        fits = lf.lmm_by("strength ~ 1 + (1 | batch/cask)", data, by="part")
    assert "single group" in fits.failed["one"]
    assert fits.ngroups.loc["rest"].to_dict() == {"batch": 9, "batch:cask": 27}


# -- reports -------------------------------------------------------------------------------------


def test_summary_of_long_names():
    long = "hospital_in_the_region_of_the_trial_network"
    data = TRIAL.rename(columns={"center": long, "patient": "participant_identifier"})
    fit = lf.lmm(f"sbp ~ month + (month | {long}/participant_identifier)", data)
    report = fit.summary()
    assert max(map(len, str(report).splitlines())) <= WIDTH
    html = report._repr_html_()
    table = fit.variance_table()
    for name in fit.ngroups:
        assert f"Groups of {name}"[:30] in str(report)
        assert f"Groups of {name}" in html
        assert f"var(month|{name})" in table.index
    assert report.tables["model"].loc[f"ngroups[{long}]", "value"] == 24


def test_json(casks):
    groups = as_json(casks, "strength ~ 1 + (1 | batch/cask)")["groups"]
    assert groups == [
        {"name": "batch", "count": 10, "smallest": 6, "mean": 6.0, "largest": 6},
        {"name": "batch:cask", "count": 30, "smallest": 2, "mean": 2.0, "largest": 2},
    ]


def test_command_line(tmp_path, capsys):
    path = tmp_path / "pastes.csv"
    PASTES.to_csv(path, index=False)
    assert main(["fit", "strength ~ 1 + (1 | batch/cask)", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [group["name"] for group in document["groups"]] == ["batch", "batch:cask"]
    assert main(["fit", "strength ~ 1 + (1 | batch/cask)", str(path)]) == 0
    assert "Groups of batch:cask" in capsys.readouterr().out
