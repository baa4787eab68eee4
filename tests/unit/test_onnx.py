"""`fit.to_onnx`: onnxruntime gives every bit of `fit.predict`."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

from models import data  # noqa: E402

DATA = data().assign(day=lambda d: d["t"].astype(np.int64), z=lambda d: np.round(d["x"] / 3, 2))
MODELS = {
    "slope": ("y ~ t * x + (t | patient)", {}),
    "text": ("y ~ t + x + (1 | site)", {}),
    "factors": ("y ~ t * arm + site:x + (1 + x | patient)", {}),
    "no intercept": ("y ~ 0 + arm + t + (0 + t | patient)", {}),
    "products": ("y ~ x:z:t + arm:site + day + (day | patient)", {}),
    "offset": ("y ~ t + (1 | patient)", {"offset": "x"}),
    "nested": ("y ~ t + (1 | site/patient)", {}),
    "crossed": ("y ~ t + (t | patient) + (x | rater)", {}),
    "ou": ("y ~ t + (1 | patient)", {"residual": lf.OU("t")}),
    "constant": ("y ~ 1 + (1 | patient)", {}),
}


def run(path, table):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {}
    for one in session.get_inputs():
        kind = {"tensor(double)": np.float64, "tensor(int64)": np.int64}.get(one.type, object)
        feed[one.name] = np.asarray(table[one.name]).astype(kind)
    (found,) = session.run(None, feed)
    return found


@pytest.fixture(params=MODELS)
def fit(request):
    formula, options = MODELS[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lf.lmm(formula, DATA, **options)


def with_labels(table):
    site = table["site"].str.replace("\\", "\\\\").str.replace(":", "\\:")
    return table.assign(**{"site:patient": site + ":" + table["patient"].astype(str)})


@pytest.mark.parametrize("level", ["population", "conditional"])
def test_every_bit(fit, level, tmp_path):
    if level == "population" and fit.x_names == ["Intercept"]:
        with pytest.raises(lf.UnsupportedModelError, match="do not depend on anything"):
            fit.to_onnx(tmp_path / "m.onnx", level)
        return
    fit.to_onnx(tmp_path / "m.onnx", level)
    found = run(tmp_path / "m.onnx", with_labels(DATA))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, fit.predict(DATA, level=level))


def test_groups_and_levels_that_are_new(tmp_path):
    fit = lf.lmm("y ~ t * arm + (t | patient)", DATA)
    fit.to_onnx(tmp_path / "m.onnx")
    new = DATA[:4].assign(patient=99999)
    found = run(tmp_path / "m.onnx", new)
    np.testing.assert_array_equal(found, fit.predict(new))
    found = run(tmp_path / "m.onnx", DATA[:4].assign(arm=["drug", "other", "", "placebo"]))
    assert np.isnan(found).tolist() == [False, True, True, False]
    found = run(tmp_path / "m.onnx", DATA[:2].assign(t=[np.nan, 1]))
    assert np.isnan(found).tolist() == [True, False]


def test_names_of_columns_that_the_graph_has_too(tmp_path):
    odd = DATA.rename(columns={"t": "prediction", "x": "value 0", "patient": "number 1.0"})
    fit = lf.lmm("y ~ prediction + `value 0` + (1 | `number 1.0`)", odd)
    fit.to_onnx(tmp_path / "m.onnx")
    np.testing.assert_array_equal(
        run(tmp_path / "m.onnx", odd), fit.predict(odd, level="conditional")
    )


def test_models_of_arrays_and_loaded_fits(tmp_path):
    X = np.column_stack([np.ones(192), DATA["t"], DATA["x"]])
    for groups in (DATA["patient"].to_numpy(), DATA["site"].to_numpy()):
        fit = lf.fit(DATA["y"].to_numpy(), X, groups, Z=X[:, :2])
        fit.save(tmp_path / "m.lmm")
        lf.load(tmp_path / "m.lmm").to_onnx(tmp_path / "m.onnx")
        table = {"x0": X[:, 0], "x1": X[:, 1], "x2": X[:, 2], "z0": X[:, 0], "z1": X[:, 1]}
        found = run(tmp_path / "m.onnx", {**table, "group": groups})
        expected = fit.predict(X, level="conditional", groups=groups, Z=X[:, :2])
        np.testing.assert_array_equal(found, expected)


def test_the_file(tmp_path):
    fit = lf.lmm("y ~ t + arm + (1 | patient)", DATA)
    fit.to_onnx(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.producer_name == "lmmfast"
    assert {one.name for one in model.graph.input} == {"t", "arm", "patient"}
    facts = {one.key: one.value for one in model.metadata_props}
    assert float(facts["log-likelihood"]) == fit.llf


@pytest.mark.parametrize(
    "formula, why",
    [
        ("y ~ log1p(t) + (1 | patient)", r"compute 'log1p\(t\)' as a column"),
        ("y ~ t + (1 | half)", "labels of 'half' are of type float64"),
        ("y ~ numbered + (1 | patient)", "categories of text"),
        ("y ~ patient + (1 | patient)", "'patient' is a number and a group"),
    ],
)
def test_what_is_not_supported(formula, why, tmp_path):
    d = DATA.assign(half=DATA["patient"] / 2, numbered=pd.Categorical(DATA["rater"]))
    fit = lf.lmm(formula, d)
    with pytest.raises(lf.UnsupportedModelError, match=why):
        fit.to_onnx(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_files_that_would_be_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("lmmfast.prediction.to_onnx.MAX_BYTES", 100)
    with pytest.raises(lf.TooLargeError, match="ONNX files hold 2 GB"):
        lf.lmm("y ~ t + (1 | patient)", DATA).to_onnx(tmp_path / "m.onnx")


def test_without_onnx():
    code = (
        "import sys; sys.modules['onnx'] = None; import lmmfast as lf\n"
        "lf.lmm('Reaction ~ Days + (1 | Subject)', lf.datasets.sleepstudy()).to_onnx('m.onnx')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "to_onnx needs onnx: pip install 'lmmfast[onnx]'" in done.stderr
