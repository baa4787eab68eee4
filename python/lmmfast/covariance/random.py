"""Where pickles of version 0.1 look for structures of D and terms; nothing else imports this."""

from lmmfast.covariance.structures import *  # noqa: F403
from lmmfast.covariance.terms import Term  # noqa: F401
