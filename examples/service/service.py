"""A service that predicts by a saved fit, and takes a new one when the file is replaced.

    pip install lmmfast fastapi uvicorn
    LMMFAST_MODEL=m.lmm uvicorn service:app

POST /predict  {"rows": [{"Subject": "S308", "Days": 10}]}
               ->  {"predictions": [450.3], "model": "…"}
GET  /model    what is served
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import lmmfast as lf

#: Rows up to which each is predicted by itself, without arrays.
FEW = 20
MAX_ROWS = 10_000

Value = bool | int | float | str | None


class Rows(BaseModel):
    """What is asked for: the columns of the model, row by row."""

    rows: list[dict[str, Value]] = Field(max_length=MAX_ROWS)


@dataclass(frozen=True)
class Served:
    """A fit as it is served: never changed, only replaced."""

    version: str
    score: Any
    about: dict[str, Any]


def signature(path: str) -> str:
    """Tell one file of this name from the next."""
    status = os.stat(path)
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


def read(path: str) -> Served:
    """Load a fit, and refuse one that has not converged."""
    version = signature(path)
    fit = lf.load(path)
    if not fit.converged:
        raise lf.DataError(f"{path}: {fit.certificate.status}")
    score = fit.scorer()
    about = {
        "version": version,
        "formula": getattr(getattr(fit.spec, "formula", None), "text", None),
        "columns": list(score.columns),
        "rows": fit.nobs,
        "certificate": fit.certificate.status,
    }
    return Served(version, score, about)


class Model:
    """The fit in a file; looks at each request whether there is another.

    Parameters
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._served = read(path)

    def current(self) -> Served:
        """Return the newest fit that is good; a bad file leaves the one before."""
        served = self._served
        try:
            if signature(self.path) != served.version:
                self._served = served = read(self.path)
        except (lf.DataError, OSError):
            pass
        return served


def predictions(served: Served, rows: list[dict[str, Value]]) -> list[float | None]:
    """Predict rows; None where a value is missing."""
    if len(rows) <= FEW:
        found = [served.score.one(**row) for row in rows]
    else:
        names = [name for name in served.score.columns if all(name in row for row in rows)]
        found = served.score({name: [row[name] for row in rows] for name in names}).tolist()
    return [value if math.isfinite(value) else None for value in found]


def create(path: str) -> FastAPI:
    """Make the service of a file."""
    app, model = FastAPI(title="lmmfast"), Model(path)

    @app.post("/predict")
    async def predict(asked: Rows) -> JSONResponse:
        served = model.current()
        try:
            found = predictions(served, asked.rows)
        except lf.DataError as error:
            return JSONResponse({"detail": str(error)}, status_code=422)
        return JSONResponse({"predictions": found, "model": served.version})

    @app.get("/model")
    async def about() -> dict[str, Any]:
        return model.current().about

    return app


def __getattr__(name: str) -> Any:
    """Make ``app`` when a server asks for it, and not when a test imports this file."""
    if name == "app":
        return create(os.environ["LMMFAST_MODEL"])
    raise AttributeError(name)
