"""The methods by name: the rows of the paper's Table 1 and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pddnet.config import available_presets, load_preset
from pddnet.cross_validation.methods import Contender
from pddnet.cross_validation.untrained import PresetMethod, Unregistered
from pddnet.errors import InputError

BEFORE = Unregistered("before", "before registration", centred=True)
_IDENTITY = Unregistered("identity", "no registration", centred=False)


@dataclass(frozen=True)
class Options:
    """What all methods are told.

    Args:
        device: as for `pddnet.register`.
    """

    device: str


def contenders_of(names: Sequence[str], options: Options) -> tuple[Contender, ...]:
    """The methods of these names, "before" first; a name that stands for several is taken apart, none comes twice.

    Raises:
        InputError: no names, or one that is not known.
    """
    makers = _makers(options)
    groups = {"presets": available_presets()}
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
    """What makes each method."""
    makers: dict[str, Callable[[], Contender]] = {
        method.name: _given(method) for method in (BEFORE, _IDENTITY)
    }
    for preset in available_presets():
        makers[preset] = lambda preset=preset: PresetMethod(preset, load_preset(preset), options.device)  # type: ignore[misc]
    return makers


def _given(method: Contender) -> Callable[[], Contender]:
    return lambda: method
