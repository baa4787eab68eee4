"""`lmmfast.sklearn.LMMRegressor`, as scikit-learn knows estimators and as lmmfast computes."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.linear_model import LinearRegression  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_predict,
    cross_validate,
)
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import estimator_checks_generator  # noqa: E402

from lmmfast.sklearn import LMMRegressor  # noqa: E402

RNG = np.random.default_rng(8)
N = 400
GROUPS = np.repeat([f"g{k}" for k in range(40)], 10)
X = RNG.normal(size=(N, 3))
B = np.repeat(RNG.normal(size=(40, 2)), 10, axis=0)
Y = 2 + X @ [1.0, -1.0, 0.5] + 2 * B[:, 0] + B[:, 1] * X[:, 0] + RNG.normal(size=N)
ONES = np.ones((N, 1))


@pytest.fixture(autouse=True)
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


CHECKS = list(estimator_checks_generator(LMMRegressor(), mark="skip"))


@pytest.mark.parametrize("k", range(len(CHECKS)))
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(k):
    estimator, check = CHECKS[k]
    with sklearn.config_context(enable_metadata_routing=False):
        check(estimator)


def test_it_is_the_fit():
    model = LMMRegressor(random_slopes=[0]).fit(X, Y, groups=GROUPS)
    A = np.hstack([ONES, X])
    fit = lf.fit(Y, A, GROUPS, Z=A[:, :2])
    assert model.result_.llf == fit.llf
    np.testing.assert_array_equal([model.intercept_, *model.coef_], fit.params)
    np.testing.assert_array_equal(
        model.predict(X, groups=GROUPS),
        fit.predict(A, level="conditional", groups=GROUPS, Z=A[:, :2]),
    )
    np.testing.assert_allclose(model.predict(X), fit.predict(A), rtol=1e-13)
    unknown = np.full(N, "nobody")
    np.testing.assert_allclose(model.predict(X, groups=unknown), fit.predict(A), rtol=1e-13)
    assert model.result_.x_names == ["Intercept", "x0", "x1", "x2"]


def test_options():
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = LMMRegressor(random_slopes=["a", -1], D=lf.D.diag(), reml=False, fit_intercept=False)
    model.fit(frame, Y, groups=GROUPS, weights=np.linspace(1, 2, N))
    Z = np.column_stack([np.ones(N), X[:, 0], X[:, 2]])
    fit = lf.fit(Y, X, GROUPS, Z=Z, weights=np.linspace(1, 2, N), D=lf.D.diag(), reml=False)
    assert model.result_.llf == fit.llf
    assert model.intercept_ == 0.0
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert model.result_.z_names == ["Intercept", "a", "c"]
    with pytest.raises(lf.DataError, match="X has no column 'd'"):
        LMMRegressor(random_slopes=["d"]).fit(frame, Y, groups=GROUPS)


def test_least_squares_without_groups():
    w = np.linspace(1, 2, N)
    for intercept in (True, False):
        model = LMMRegressor(fit_intercept=intercept).fit(X, Y, weights=w)
        plain = LinearRegression(fit_intercept=intercept).fit(X, Y, sample_weight=w)
        np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-10)
        np.testing.assert_allclose(model.predict(X, groups=GROUPS), plain.predict(X), rtol=1e-10)
        assert model.result_ is None


def test_columns_that_others_determine():
    twice = np.hstack([X, 2 * X[:, :1]])
    with pytest.warns(lf.RankWarning), pytest.warns(lf.NewDataWarning):
        model = LMMRegressor().fit(twice, Y, groups=GROUPS)
    assert np.count_nonzero(model.coef_) == 3
    plain = LMMRegressor().fit(X, Y, groups=GROUPS)
    np.testing.assert_allclose(model.predict(twice), plain.predict(X), rtol=1e-9)


def routed(**options):
    model = LMMRegressor(random_slopes=[0], **options)
    for request in (model.set_fit_request, model.set_predict_request, model.set_score_request):
        request(groups=True)
    return model


def test_pipelines_and_clones():
    pipe = make_pipeline(StandardScaler(), routed())
    pipe.fit(X, Y, groups=GROUPS)
    assert pipe.score(X, Y, groups=GROUPS) > 0.8 > pipe.score(X, Y, groups=np.full(N, "new"))
    copy = clone(pipe)
    assert not hasattr(copy[-1], "coef_")
    copy.fit(X, Y, groups=GROUPS)
    np.testing.assert_array_equal(
        copy.predict(X, groups=GROUPS),
        pickle.loads(pickle.dumps(pipe)).predict(X, groups=GROUPS),
    )


def test_cross_validation():
    """Groups that are known are predicted better than new ones."""
    new = cross_validate(routed(), X, Y, params={"groups": GROUPS}, cv=GroupKFold(5))
    known = cross_validate(
        routed(), X, Y, params={"groups": GROUPS}, cv=KFold(5, shuffle=True, random_state=1)
    )
    assert known["test_score"].min() > new["test_score"].max()
    found = cross_val_predict(routed(), X, Y, params={"groups": GROUPS}, cv=GroupKFold(5))
    assert found.shape == Y.shape


def test_grid_search_by_processes():
    grid = {"random_slopes": [None, [0], [0, 1]], "reml": [True, False]}
    search = GridSearchCV(routed(), grid, cv=KFold(4, shuffle=True, random_state=2), n_jobs=2)
    search.fit(X, Y, groups=GROUPS)
    assert 0 in search.best_params_["random_slopes"]
    assert search.best_score_ > 0.75


def test_without_scikit_learn():
    code = "import sys; sys.modules['sklearn.base'] = None; import lmmfast.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "needs scikit-learn 1.6 or newer: pip install 'lmmfast[sklearn]'" in done.stderr
