"""The methods by name: the rows of the paper's Table 1 and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pddnet.config import available_presets, load_preset
from pddnet.cross_validation.external import external_contenders
from pddnet.cross_validation.methods import Contender
from pddnet.cross_validation.trained import Row, TrainedMethod, Trainings
from pddnet.cross_validation.untrained import PresetMethod, Unregistered
from pddnet.errors import InputError

BEFORE = Unregistered("before", "before registration", centred=True)
_IDENTITY = Unregistered("identity", "no registration", centred=False)

ROWS = (
    Row("label-reg", "Label-Reg", "label-reg"),
    Row("flownet-c", "FlowNet-C", "flownet-c"),
    Row("pdd+ssc", "pdd+SSC", "pdd-net", {"features": "mind-ssc"}),
    Row("pdd-wo-mf", "pdd w/o MF", "pdd-net", {"mean_field": False}),
    Row("pdd-wo-nl", "pdd w/o NL", "pdd-net", {"label_loss": "spatial-transformer"}),
    Row("pdd-net", "pdd-net", "pdd-net"),
    Row("pdd+inst", "pdd+inst.", "pdd-net", instance_optimisation=True),
    Row("pdd-dice", "pdd-net, soft Dice loss", "pdd-net", {"label_loss": "soft-dice"}),
    Row("pdd-mind", "pdd-net, MIND loss, no labels", "pdd-net", {"supervision": "mind"}),
    Row("pdd-untrained", "pdd-net, untrained", "pdd-net", trained=False),
    Row("ssc-untrained", "pdd+SSC, untrained", "pdd-net", {"features": "mind-ssc"}, trained=False),
    Row(
        "ssc-untrained+inst",
        "pdd+SSC, untrained, inst.",
        "pdd-net",
        {"features": "mind-ssc"},
        trained=False,
        instance_optimisation=True,
    ),
)
TABLE_1 = (
    *("label-reg", "flownet-c", "pdd+ssc", "pdd-wo-mf", "pdd-wo-nl", "pdd-net", "pdd+inst"),
    *("deeds-1", "deeds-3", "niftyreg"),
)


@dataclass(frozen=True)
class Options:
    """What the methods are told.

    Args:
        device: as for `pddnet.register`.
        trainings: for those that learn.
    """

    device: str
    trainings: Trainings


def contenders_of(names: Sequence[str], options: Options) -> tuple[Contender, ...]:
    """The methods of these names, "before" first; a name that stands for several is taken apart, none comes twice.

    Raises:
        InputError: no names, or one that is not known.
    """
    makers = _makers(options)
    groups = {"table-1": list(TABLE_1), "presets": available_presets()}
    wanted = [BEFORE.name]
    for name in filter(None, (name.strip().lower() for name in names)):
        if name not in makers and name not in groups:
            raise InputError(
                f"method '{name}' is not known; choose among {', '.join(makers)}, or {', '.join(groups)} for several"
            )
        wanted += groups.get(name, [name])
    if len(wanted) == 1:
        raise InputError(f"no method is named; choose among {', '.join(makers)}")
    return tuple(makers[name]() for name in dict.fromkeys(wanted))


def _makers(options: Options) -> dict[str, Callable[[], Contender]]:
    """What makes each method, in the order in which they are listed."""
    makers: dict[str, Callable[[], Contender]] = {
        method.name: _given(method) for method in (BEFORE, _IDENTITY)
    }
    for preset in available_presets():
        makers[preset] = _preset(preset, options.device)
    learned = (TrainedMethod(row, options.trainings) for row in ROWS)
    others: tuple[Contender, ...] = (*learned, *external_contenders())
    return makers | {method.name: _given(method) for method in others}


def _given(method: Contender) -> Callable[[], Contender]:
    return lambda: method


def _preset(name: str, device: str) -> Callable[[], Contender]:
    return lambda: PresetMethod(name, load_preset(name), device)
