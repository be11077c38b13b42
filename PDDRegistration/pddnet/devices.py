"""Where PyTorch can compute."""

from __future__ import annotations

import torch

from pddnet.errors import DeviceError


def resolve_device(name: str) -> torch.device:
    """The torch device of a name.

    Raises:
        DeviceError: there is no such device here.
    """
    names = _names()
    if name == "auto":
        return torch.device(names[1] if len(names) > 1 else "cpu")
    wanted = f"{name}:0" if name == "cuda" else name
    if wanted not in names:
        raise DeviceError(f"device '{name}' is not available; choose auto or one of {', '.join(names)}")
    return torch.device(wanted)


def available() -> dict[str, str]:
    """The devices by name, each with what people want to know about it."""
    described = {"cpu": f"{torch.get_num_threads()} threads"}
    for number, name in enumerate(_names()[1:]):
        free, total = torch.cuda.mem_get_info(number)
        model = torch.cuda.get_device_name(number)
        described[name] = f"{model}, {free / 1e6:.0f} of {total / 1e6:.0f} MB free"
    return described


def _names() -> list[str]:
    return ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
