"""The MLflow flavour: logged, loaded, scored; nothing pickled."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import lmmfast as lf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mlflow = pytest.importorskip("mlflow")
    from lmmfast import mlflow as flavour

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    mlflow.set_experiment("tests")
    with mlflow.start_run() as active:
        yield active


def test_logged_and_loaded(run):
    data = lf.datasets.sleepstudy()
    fit = lf.lmm(SLEEP, data)
    info = flavour.log_model(fit, "sleep")
    found = flavour.load_model(info.model_uri)
    assert found.llf == fit.llf
    expected = fit.predict(data, "conditional")
    scored = mlflow.pyfunc.load_model(info.model_uri)
    np.testing.assert_array_equal(scored.predict(data), expected)
    assert scored.get_raw_model().llf == fit.llf
    logged = mlflow.get_run(run.info.run_id).data
    assert logged.params["formula"] == SLEEP and logged.params["method"] == "REML"
    assert logged.metrics["llf"] == fit.llf and logged.metrics["converged"] == 1.0
    steps = mlflow.MlflowClient().get_metric_history(run.info.run_id, "search_llf")
    assert [step.value for step in steps] == [entry["llf"] for entry in fit.trace]


def test_a_folder(tmp_path):
    fit = lf.lmm(SLEEP, lf.datasets.sleepstudy())
    flavour.save_model(fit, tmp_path / "m", clusters=True)
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names == {"MLmodel", "model.lmm", "requirements.txt", "python_env.yaml"}
    assert "cloudpickle" not in (tmp_path / "m" / "MLmodel").read_text()
    more = lf.datasets.sleepstudy().iloc[:20].assign(Subject="new")
    assert flavour.load_model(str(tmp_path / "m")).append(more).nobs == 200
    with pytest.raises(lf.DataError, match="not empty"):
        flavour.save_model(fit, tmp_path / "m")


def test_fits_by_segment(tmp_path):
    data = lf.datasets.sleepstudy().assign(half=lambda d: d["Subject"].cat.codes % 2)
    fits = lf.lmm_by(SLEEP, data, "half")
    flavour.save_model(fits, tmp_path / "m")
    scored = mlflow.pyfunc.load_model(str(tmp_path / "m"))
    expected = fits.predict(data, "conditional")
    np.testing.assert_array_equal(scored.predict(data), expected)
