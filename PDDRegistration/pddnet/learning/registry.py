"""Which registrations can be trained, by name; their modules are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pddnet.errors import InputError
from pddnet.learning.trainable import TrainableRegistration
from pddnet.trained_weights import TrainedWeights

_HOMES = {
    "pdd-net": "pddnet.learning.pdd_net:TrainablePddNet",
    "flownet-c": "pddnet.baselines.flownet_c:FlowNetC",
    "label-reg": "pddnet.baselines.label_reg:LabelReg",
}


def trainable_names() -> list[str]:
    """The names that `trainable_class` knows."""
    return sorted(_HOMES)


def trainable_class(name: str) -> type[TrainableRegistration]:
    """The class of a name.

    Raises:
        InputError: nothing of that name can be trained.
    """
    if name not in _HOMES:
        raise InputError(f"method '{name}' cannot be trained; choose one of {', '.join(trainable_names())}")
    module, attribute = _HOMES[name].split(":")
    found: type[TrainableRegistration] = getattr(import_module(module), attribute)
    return found


def create(name: str, config: Mapping[str, Any]) -> TrainableRegistration:
    """An untrained registration of these settings; raises InputError as `trainable_class` and `from_config`."""
    return trainable_class(name).from_config(config)


def restore(weights: TrainedWeights) -> TrainableRegistration:
    """The registration that a checkpoint holds, on the CPU, in eval mode; raises InputError where it does not fit."""
    model = create(weights.kind, weights.config)
    weights.load_into(model)
    return model.eval()
