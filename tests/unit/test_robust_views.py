"""What users ask of robust variances, and what is refused."""

import numpy as np
import pytest

import lmmfast as lf


@pytest.fixture(scope="module")
def fit():
    return lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())


def test_summary_says_so(fit):
    text = str(fit.inference(vcov="CR2").summary())
    assert "robust by groups (CR2), t with Satterthwaite's" in text.replace("\n  ", " ")
    normal = fit.inference("normal", vcov="CR0")
    assert np.isinf(normal.df).all()
    assert "z from the normal distribution" in str(normal.summary()).replace("\n  ", " ")
    assert (fit.inference("residual", vcov="CR0").df == 178).all()


def test_order_of_rows_does_not_matter(fit):
    data = lf.datasets.sleepstudy().sample(frac=1, random_state=3)
    other = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    for kind in ("CR0", "CR2", "CR3"):
        got, want = (f.inference(vcov=kind).tidy() for f in (other, fit))
        np.testing.assert_allclose(got, want, rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"vcov": "HC3"}, ValueError, "'CR2'"),
        ({"vcov": "CR2", "ddf": "kenward-roger"}, ValueError, "standard errors of its own"),
        ({"cluster": np.arange(180)}, ValueError, "robust"),
        ({"vcov": "CR2", "cluster": "Subject"}, lf.DataError, r"data\['Subject'\]"),
        ({"vcov": "CR2", "cluster": np.arange(5)}, lf.DataError, "has 5 values"),
        ({"vcov": "CR2", "cluster": np.arange(180)}, lf.DataError, "several clusters"),
        ({"vcov": "CR2", "cluster": np.full(180, np.nan)}, lf.DataError, "missing in 180"),
    ],
)
def test_errors(fit, options, error, message):
    with pytest.raises(error, match=message):
        fit.inference(**options)


def test_crossed_factors_need_clusters():
    crossed = lf.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", lf.datasets.penicillin())
    with pytest.raises(lf.UnsupportedModelError, match="cluster="):
        crossed.inference(vcov="CR2")


def test_without_data(fit):
    with pytest.raises(lf.DataError, match="need the data"):
        fit.remove_data().inference(vcov="CR2")


def test_rows_left_out():
    data = lf.datasets.sleepstudy()
    data.loc[[3, 20, 90], "Reaction"] = np.nan
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    whole = fit.inference(vcov="CR2", cluster=data["Subject"])
    used = fit.inference(vcov="CR2", cluster=data["Subject"][data["Reaction"].notna()])
    np.testing.assert_allclose(whole.bse, used.bse)
    np.testing.assert_allclose(whole.bse, fit.inference(vcov="CR2").bse, rtol=1e-10)


def test_a_cluster_that_carries_a_coefficient_alone():
    """Its leverage is one: CR2 and CR3 leave that direction out and stay finite."""
    data = lf.datasets.sleepstudy()
    data["first"] = (data["Subject"] == data["Subject"].iloc[0]).astype(float)
    fit = lf.lmm("Reaction ~ Days + first + (1 | Subject)", data)
    for kind in ("CR2", "CR3"):
        view = fit.inference(vcov=kind)
        assert np.isfinite(view.bse).all()
        assert view.bse["first"] < fit.bse["first"]
