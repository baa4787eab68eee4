"""Derivatives by complex steps, exact to rounding.

References
----------
Squire, W. and Trapp, G. (1998). Using complex variables to estimate derivatives of real functions.
SIAM Review 40, 110-112.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.structure import Values


def complex_step(function: Callable[[Values], Values], at: Array) -> Array:
    """Derivatives of a real function by its arguments (K,), the arguments along the first axis."""
    step = 1e-30
    columns = []
    for k in range(len(at)):
        shifted = at.astype(complex)
        shifted[k] += 1j * step
        columns.append(np.imag(function(shifted)) / step)
    value = np.asarray(function(at))
    return np.array(columns).reshape(len(at), *value.shape)
