"""What the engines for residual structures share: the rows, and the parameters they stand at."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.engines.engine import BaseEngine
from lmmfast.engines.totals import Totals
from lmmfast.residual.layout import Stratum
from lmmfast.residual.model import ResidualModel


class ResidualEngineBase(BaseEngine):
    """What both engines share: the data, and the parameters that they stand at."""

    def __init__(
        self, A: Array, Z: Array, weights: Array | None, model: ResidualModel, n_threads: int
    ) -> None:
        self.A, self.Z, self.model, self.n_threads = A, Z, model, n_threads
        self.inverse_root_weights = None if weights is None else 1.0 / np.sqrt(weights)
        # Totals leave out log|W^-1|.
        self.log_weights = 0.0 if weights is None else float(np.log(weights).sum())
        self.kappa = np.empty(0)

    def at(self, kappa: Array) -> Any:
        """Return the same engine at other parameters of the residual structure."""
        new = copy.copy(self)
        new.kappa = kappa
        return new

    @property
    def _K_D(self) -> int:
        q = self.Z.shape[1]
        return q * (q + 1) // 2

    def _local(self, stratum: Stratum) -> list[int]:
        """Places, among all parameters of the totals, of those that a stratum depends on."""
        own = [*range(stratum.psi.start, stratum.psi.stop)]
        own += [] if stratum.nu is None else [stratum.nu]
        shared = [*range(self._K_D + self.model.parameters.n_variance)]
        return [*shared, *(self._K_D + k for k in own)]

    def _zero(self, with_kr: bool) -> Totals:
        K, p1 = self._K_D + self.model.parameters.n_params, self.A.shape[1]
        return Totals(
            self.log_weights,
            np.zeros((p1, p1)),
            np.zeros(K),
            np.zeros((K, p1, p1)),
            np.zeros((K, K)),
            np.zeros((K, K, p1, p1)) if with_kr else None,
        )

    def _failed(self) -> Totals:
        """Totals where V is not positive definite: the likelihood is not finite there."""
        zero = self._zero(False)
        return Totals(np.inf, zero.gram * np.nan, zero.trace, zero.quad, zero.info)

    def _variance_kappa(self) -> Array:
        return np.ascontiguousarray(self.kappa[: self.model.parameters.n_variance])

    def _nu(self, stratum: Stratum) -> float | None:
        return None if stratum.nu is None else float(self.kappa[stratum.nu])
