"""Every adapter there is."""

from __future__ import annotations

from pddnet.baselines.external.deeds import DEFAULT_LEVELS, ONE_LEVEL, THREE_LEVELS, Deeds
from pddnet.baselines.external.elastix import Elastix
from pddnet.baselines.external.niftyreg import NiftyReg
from pddnet.baselines.external.packages import AntsSyn, ConvexAdam, Greedy
from pddnet.baselines.external.program import ExternalMethod, Peers


def external_methods(peers: Peers | None = None) -> list[ExternalMethod]:
    """All of them, the absent ones too, in the order of the tables.

    Args:
        peers: where they are; as the environment says by default.
    """
    peers = Peers.of_environment() if peers is None else peers
    deeds = [Deeds(peers, levels) for levels in (ONE_LEVEL, THREE_LEVELS, DEFAULT_LEVELS)]
    return [*deeds, NiftyReg(peers), AntsSyn(peers), Greedy(peers), Elastix(peers), ConvexAdam(peers)]
