"""The libraries timed, one file each, behind one small protocol.

A peer's file is imported in the parent too, so it imports its library only inside its methods.
"""

from __future__ import annotations

from .base import Fit, Peer
from .glmm import Glmm
from .lme_python import LmePython
from .lmmfast import LmmfastArrays, LmmfastFormula
from .mixedlm import Mixedlm
from .mixedlm_rs import MixedlmRsArrays, MixedlmRsFormula
from .r import GlmmTMB, Lme4, Nlme
from .statsmodels import Statsmodels, StatsmodelsFormula

__all__ = ["PEERS", "Fit", "Peer"]

PEERS: dict[str, Peer] = {
    peer.key: peer
    for peer in (
        LmmfastArrays(),
        LmmfastFormula(),
        MixedlmRsArrays(),
        MixedlmRsFormula(),
        Glmm(),
        Mixedlm(),
        LmePython(),
        Lme4(),
        Statsmodels(),
        StatsmodelsFormula(),
        Nlme(),
        GlmmTMB(),
    )
}
