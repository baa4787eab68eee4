"""A flavour for MLflow: the file of `LMMResult.save` with a loader, and nothing that is pickled."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmmfast
from lmmfast.batch.by_result import LMMByResult
from lmmfast.errors import DataError
from lmmfast.persist.files import load
from lmmfast.result import LMMResult

try:
    import mlflow
    from mlflow import pyfunc
    from mlflow.models import Model
except ImportError as error:
    raise ImportError("lmmfast.mlflow needs MLflow: pip install 'lmmfast[mlflow]'") from error

FLAVOR_NAME = "lmmfast"
_DATA = "model.lmm"
_REQUIREMENTS = "requirements.txt"
_ENVIRONMENT = "python_env.yaml"


def save_model(
    fit: LMMResult | LMMByResult,
    path: str | Path,
    mlflow_model: Model | None = None,
    *,
    signature: Any = None,
    clusters: bool = False,
) -> None:
    """Write a fit as an MLflow model.

    Parameters
    ----------
    fit : LMMResult or LMMByResult
    path : path
        A folder that is made, or is empty.
    mlflow_model : mlflow.models.Model, optional
        To which the flavours ``lmmfast`` and ``python_function`` are added.
    signature : mlflow.models.ModelSignature, optional
    clusters : bool
        See `LMMResult.save`.

    Raises
    ------
    DataError
        The folder is not empty, or the fit cannot be saved.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty")
    model = Model() if mlflow_model is None else mlflow_model
    if signature is not None:
        model.signature = signature
    if isinstance(fit, LMMResult):
        fit.save(folder / _DATA, clusters=clusters)
    else:
        fit.save(folder / _DATA)
    model.add_flavor(FLAVOR_NAME, lmmfast_version=lmmfast.__version__, data=_DATA)
    pyfunc.add_to_model(model, loader_module="lmmfast.mlflow", data=_DATA, python_env=_ENVIRONMENT)
    (folder / _REQUIREMENTS).write_text(f"lmmfast=={lmmfast.__version__}\n")
    (folder / _ENVIRONMENT).write_text(
        f"python: {platform.python_version()}\ndependencies:\n- -r {_REQUIREMENTS}\n"
    )
    model.save(str(folder / "MLmodel"))


def log_model(fit: LMMResult | LMMByResult, name: str = "model", **options: Any) -> Any:
    """Log a fit to the active run: the model, its numbers, and its search by steps.

    Parameters
    ----------
    fit : LMMResult or LMMByResult
    name : str
    **options
        Of `save_model` and of ``mlflow.models.Model.log``, such as ``registered_model_name``.

    Returns
    -------
    mlflow.models.model.ModelInfo
    """
    info = Model.log(
        artifact_path=None, name=name, flavor=sys.modules[__name__], fit=fit, **options
    )
    if isinstance(fit, LMMResult):
        _log_numbers(fit)
    return info


def load_model(
    model_uri: str, *, context: Mapping[str, Any] | None = None, trust: bool = False
) -> Any:
    """Load a fit that was logged or saved.

    Parameters
    ----------
    model_uri : str
        Such as ``runs:/<run>/model``, ``models:/<name>/1`` or a folder.
    context, trust
        See `lmmfast.load`.

    Returns
    -------
    LMMResult or LMMByResult
    """
    folder = mlflow.artifacts.download_artifacts(artifact_uri=model_uri)
    return load(Path(folder) / _DATA, context=context, trust=trust)


def _log_numbers(fit: LMMResult) -> None:
    """Parameters of the run are what was asked for, metrics what was found."""
    formula = getattr(fit.spec, "formula", None)
    asked = {"method": fit.method, "groups": fit.group_name, "nobs": fit.nobs}
    if formula is not None:
        asked["formula"] = formula.text
    mlflow.log_params(asked)
    numbers = {"llf": fit.llf, "aic": fit.aic, "bic": fit.bic, "converged": float(fit.converged)}
    mlflow.log_metrics({name: x for name, x in numbers.items() if math.isfinite(x)})
    for entry in fit.trace:
        for name in ("llf", "decrement"):
            if math.isfinite(entry[name]):
                mlflow.log_metric(f"search_{name}", float(entry[name]), step=entry["evaluation"])


class _PyFunc:
    """What ``mlflow.pyfunc.load_model`` hands out; ``params`` may say level and new_levels."""

    def __init__(self, fit: LMMResult | LMMByResult) -> None:
        self._fit = fit

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Predict rows, at level "conditional" unless ``params`` says otherwise."""
        return self._fit.predict(data, **{"level": "conditional", **(params or {})})

    def get_raw_model(self) -> LMMResult | LMMByResult:
        """Return the fit."""
        return self._fit


def _load_pyfunc(path: str) -> _PyFunc:
    """Load what MLflow's loader asks for: the file itself, or its folder."""
    found = Path(path)
    return _PyFunc(load(found / _DATA if found.is_dir() else found))
