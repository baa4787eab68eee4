"""LS means, their differences and type III tests beside SAS PROC MIXED, to the 1e-6 they carry.

With WEIGHT and TYPE=UN SAS's degrees of freedom ignore the weights (a quirk that depends on their
scale): not compared.
"""

import pytest
from peers import assert_close, expected
from test_residual_sas import fit_of, residual_text

pytestmark = pytest.mark.filterwarnings("ignore::lmmfast.errors.MissingRowsWarning")

CASES = expected("sas_means")["cases"]


def view_of(name):
    spec = expected("sas")["cases"][name]
    fit = fit_of(
        spec["formula"],
        spec["method"],
        residual_text(spec),
        spec["weights"],
        tuple(spec["baseline"].items()),
    )
    return fit.inference(CASES[name]["ddf"])


def chosen(frame, levels):
    for column, level in levels.items():
        frame = frame[frame[column] == level]
    assert len(frame) == 1
    return frame.iloc[0]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "means" in case])
def test_means(name):
    view, frames = view_of(name), {}
    for levels, estimate, se, df, low, high in CASES[name]["means"]:
        of = tuple(levels)
        if of not in frames:
            frames[of] = view.emmeans(list(of)).frame
        row = chosen(frames[of], levels)
        assert_close(row["estimate"], estimate, 1e-6)
        assert_close(row["std_error"], se, 1e-6)
        if not CASES[name]["weighted_un"]:
            assert_close(row["df"], df, 1e-6)
            assert_close([row["conf_low"], row["conf_high"]], [low, high], 1e-6)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "differences" in case])
def test_differences(name):
    view, pairs = view_of(name), {}
    for levels, minus, estimate, se, df in CASES[name]["differences"]:
        of = tuple(levels)
        if of not in pairs:
            means = view.emmeans(list(of))
            pairs[of] = means, means.labels.astype(object).to_dict("records")
        means, labels = pairs[of]
        weights = [float(own == levels) - float(own == minus) for own in labels]
        row = means.contrast({"difference": weights}).frame.iloc[0]
        assert_close(row["estimate"], estimate, 1e-6, se)
        assert_close(row["std_error"], se, 1e-6)
        if not CASES[name]["weighted_un"]:
            assert_close(row["df"], df, 1e-6)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "type3" in case])
def test_type_three(name):
    table = view_of(name).anova()
    for term, df_num, df_denom, F in CASES[name]["type3"]:
        own = next(label for label in table.index if set(label.split(":")) == set(term.split("*")))
        row = table.loc[own]
        assert row["df_num"] == df_num
        assert_close(row["statistic"], F, 2e-6)
        if not CASES[name]["weighted_un"]:
            assert_close(row["df_denom"], df_denom, 1e-6)
