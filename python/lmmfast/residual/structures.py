"""Where pickles of version 0.1 look for residual structures; nothing else imports this."""

from lmmfast.residual.kinds import *  # noqa: F403
from lmmfast.residual.structure import (  # noqa: F401
    Correlation,
    CustomFunction,
    ResidualStructure,
    Variance,
)
