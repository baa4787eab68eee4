"""What users ask of robust variances, and what is refused."""

import pickle

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


def test_one_cluster_is_refused(fit):
    with pytest.raises(lf.DataError, match="at least two clusters"):
        fit.inference(vcov="CR1", cluster=np.zeros(180))


@pytest.mark.parametrize("kind", ["CR0", "CR1p", "CR2", "CR3"])
def test_what_two_clusters_cannot_tell_is_nan(kind):
    data = lf.datasets.orthodont()
    fit = lf.lmm("distance ~ age * Sex + (age | Subject)", data)
    view = fit.inference(vcov=kind, cluster=(data["Sex"] == "Male").to_numpy())
    assert view.bse.isna().all()  # each sex carries its line alone
    assert view.pvalues.isna().all()
    assert np.isnan(view.test(np.eye(4)[1:3]).p_value)
    assert view.anova()["statistic"].isna().all()


def test_more_functions_than_clusters():
    data = lf.datasets.sleepstudy().query("Subject in ['S308', 'S309', 'S310']")
    fit = lf.lmm("Reaction ~ poly(Days, 4) + (1 | Subject)", data)
    found = fit.inference(vcov="CR2").test(np.eye(5)[1:])
    assert found.df_num == 4
    assert np.isnan(found.p_value)


@pytest.mark.parametrize("kind", ["CR0", "CR2"])
def test_without_fixed_effects(kind):
    fit = lf.lmm("Reaction ~ 0 + (1 | Subject)", lf.datasets.sleepstudy())
    view = fit.inference(vcov=kind)
    assert view.tidy().empty
    assert "Fixed effects\nnone" in str(view.summary())


@pytest.mark.parametrize("options", [{"vcov": "CR2"}, {"ddf": "between-within"}])
def test_without_rows_coefficients_stay_and_sums_go(fit, options):
    view = fit.inference(**options)
    for bare in (view.remove_data(), pickle.loads(pickle.dumps(view))):
        np.testing.assert_array_equal(bare.tidy(), view.tidy())
        assert bare.test("Days = 10").p_value == view.test("Days = 10").p_value
    many = np.repeat(np.arange(18), 10)
    clustered = fit.inference(vcov="CR2", cluster=many)
    assert len(pickle.dumps(clustered)) < 12_000
    with pytest.raises(lf.DataError, match="several coefficients"):
        clustered.remove_data().test(np.eye(2))
