"""Results of `fit_many`: arrays with a row for each response, and tidy frames of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.batch.response_fit import ResponseFit, varcorr_of
from lmmfast.covariance.terms import BlockCovariance, Term, natural_names
from lmmfast.inference.wald import coefficient_table
from lmmfast.pickled import checked, with_version

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.design.design import Design

#: Endings that leave no result.
NO_FIT = (
    "constant, or fitted exactly by the fixed effects",
    "fitted exactly by fixed and random effects together",
    "a value is missing or infinite",
    "the data cannot tell its variances apart",
    "the log-likelihood is not finite",
    "the estimates exceed the range of double precision",
)


@dataclass(eq=False)
class ManyFits:
    """Fits of many responses on one design; ``fits[k]`` or ``fits["name"]`` is one of them.

    Attributes
    ----------
    beta, bse : ndarray (r, p)
        Fixed effects and their standard errors, in the order of ``x_names``.
    D : ndarray (r, q, q)
        Covariance matrices of the random effects.
    sigma2 : ndarray (r,)
        Residual variances.
    theta : ndarray (r, n_theta)
        Variance parameters in the order of ``theta_names``, the residual variance last.
    llf : ndarray (r,)
        Log-likelihoods (or restricted ones), as `LMMResult.llf`.
    status : ndarray of str (r,)
        "converged", "converged on the boundary", or what went wrong.
    converged : ndarray of bool (r,)
    decrement : ndarray (r,)
        Newton decrements, as `Certificate.decrement`.
    evaluations : ndarray of int (r,)
    y_names, x_names, theta_names, z_names : list of str
    nobs, ngroups : int
        Rows and groups of the design.
    group_name, method : str
        The grouping factor; "REML" or "ML".
    n_flat : int
        Number of variance parameters that the data cannot tell apart from the others.
    """

    beta: Array
    bse: Array
    D: Array
    sigma2: Array
    llf: Array
    status: NDArray[Any]
    decrement: Array
    evaluations: NDArray[np.int64]
    theta: Array = field(default_factory=lambda: np.empty((0, 0)))
    y_names: list[str] = field(default_factory=list)
    x_names: list[str] = field(default_factory=list)
    z_names: list[str] = field(default_factory=list)
    theta_names: list[str] = field(default_factory=list)
    terms: tuple[Term, ...] = ()
    nobs: int = 0
    ngroups: int = 0
    group_name: str = "group"
    method: str = "REML"
    n_flat: int = 0

    @staticmethod
    def endings(limit: str) -> list[str]:
        """Words for the endings of a search, by the core's numbers."""
        return [
            "converged",
            "not converged: the search stopped before the gradient vanished",
            "not converged: the search stopped at a saddle",
            f"not converged: {limit}",
            NO_FIT[3],
            NO_FIT[4],
        ]

    @classmethod
    def join(
        cls,
        parts: Sequence[ManyFits],
        y_names: list[str],
        design: Design,
        ngroups: int,
        keep: NDArray[np.intp],
        covariance: BlockCovariance,
        reml: bool,
    ) -> ManyFits:
        """Put the results of all chunks together and name them."""

        def all_of(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        joined = cls(
            beta=all_of("beta"),
            bse=all_of("bse"),
            D=all_of("D"),
            sigma2=all_of("sigma2"),
            llf=all_of("llf"),
            status=all_of("status"),
            decrement=all_of("decrement"),
            evaluations=all_of("evaluations"),
        )
        joined.theta = np.column_stack([natural_parameters(covariance, joined.D), joined.sigma2])
        joined.y_names = y_names
        joined.x_names = [design.x_names[j] for j in keep]
        joined.terms, joined.group_name = tuple(design.terms), design.group_name
        joined.nobs, joined.ngroups = design.n_obs, ngroups
        joined.z_names = [name for term in design.terms for name in term.names]
        joined.theta_names = [*natural_names(design.terms), "var(Residual)"]
        joined.n_flat = max((part.n_flat for part in parts), default=0)
        joined.method = "REML" if reml else "ML"
        return joined

    def __len__(self) -> int:
        return len(self.llf)

    def __getitem__(self, response: int | str) -> ResponseFit:
        """Return one fit, by its position or its name.

        Raises
        ------
        KeyError
            There is no response of this name.
        IndexError
            There are fewer responses.
        """
        import pandas as pd

        if isinstance(response, str):
            if response not in self.y_names:
                raise KeyError(f"{response!r} is no response of these fits; see .y_names")
            k = self.y_names.index(response)
        else:
            k = range(len(self))[response]
        return ResponseFit(
            y_name=self.y_names[k],
            group_name=self.group_name,
            params=pd.Series(self.beta[k], index=self.x_names, copy=True),
            bse=pd.Series(self.bse[k], index=self.x_names, copy=True),
            theta=pd.Series(self.theta[k], index=self.theta_names, copy=True),
            varcorr=varcorr_of(self.terms, self.D[k], float(self.sigma2[k])),
            llf=float(self.llf[k]),
            decrement=float(self.decrement[k]),
            status=str(self.status[k]),
            nobs=self.nobs,
            ngroups=self.ngroups,
            evaluations=int(self.evaluations[k]),
            method=self.method,
            n_flat=self.n_flat,
        )

    def __iter__(self) -> Iterator[ResponseFit]:
        """Run through the fits."""
        return (self[k] for k in range(len(self)))

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Which responses have a certified optimum, (r,)."""
        return np.array([str(text).startswith("converged") for text in self.status], dtype=bool)

    @property
    def params(self) -> pd.DataFrame:
        """Fixed effects, a row for each response."""
        return self._frame(self.beta, self.x_names)

    def to_frame(self) -> pd.DataFrame:
        """One row for each response: fixed effects, variance parameters, llf, status."""
        import pandas as pd

        rest = pd.DataFrame(
            {"llf": self.llf, "converged": self.converged, "status": self.status},
            index=pd.Index(self.y_names, name="response"),
        )
        return pd.concat([self.params, self._frame(self.theta, self.theta_names), rest], axis=1)

    def tidy(self, alpha: float = 0.05) -> pd.DataFrame:
        """One row for each response and fixed effect, columns as in `LMMResult.tidy`.

        Parameters
        ----------
        alpha : float
            One minus the level of the intervals.
        """
        import pandas as pd

        r, p = self.beta.shape
        table = coefficient_table(pd.Series(self.beta.ravel()), pd.Series(self.bse.ravel()), alpha)
        table.insert(0, "response", np.repeat(np.asarray(self.y_names, dtype=object), p))
        table.insert(1, "term", np.tile(np.asarray(self.x_names, dtype=object), r))
        return table

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to a file, which `lmmfast.load` reads; see `LMMResult.save`.

        Parameters
        ----------
        path : path
            A file of this name is replaced when the new one is whole.
        """
        from lmmfast.persist.files import save

        save(self, path)

    def __repr__(self) -> str:
        """Return one line."""
        good = int(self.converged.sum())
        return (
            f"<ManyFits {self.method}: {len(self)} responses, {good} converged; "
            f"fixed effects {', '.join(self.x_names)}>"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with a version."""
        return with_version(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(checked(state))

    def _frame(self, values: Array, names: list[str]) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(values, index=pd.Index(self.y_names, name="response"), columns=names)


def name_endings(
    found: dict[str, Any], status: NDArray[Any], sizes: Sequence[int], limit: str
) -> None:
    """Say in words how the core's searches ended, where nothing is said yet."""
    singular = (found["ranks"] < np.array(sizes)).any(axis=1)
    names = ManyFits.endings(limit)
    for k, code in enumerate(found["status"]):
        if status[k] == "":
            status[k] = names[int(code)]
            if code == 0 and singular[k]:
                status[k] = "converged on the boundary"


def natural_parameters(covariance: BlockCovariance, D: Array) -> Array:
    """Natural parameters (r, n_params) of D (r, q, q), linear in D in the core."""
    row, column = covariance.pairs
    basis = np.zeros((len(row), covariance.q, covariance.q))
    k = np.arange(len(row))
    basis[k, row, column] = basis[k, column, row] = 1.0
    return D[:, row, column] @ np.stack([covariance.natural(E) for E in basis])
