"""What the person who starts the script may choose, by environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The choices.

    Args:
        folder: PDDREGISTRATION_OUT, where everything is written.
        install: PDDREGISTRATION_INSTALL=1, install PyTorch where it is missing.
        levels: PDDREGISTRATION_LEVELS, how many levels are computed; 0 for all of the preset.
        preset: PDDREGISTRATION_PRESET, e.g. generic; "" for the one that a sample chooses.
        size: PDDREGISTRATION_SIZE, e.g. 60x50x70, voxels of the made-up scans; None for what the panel makes.
        patience: PDDREGISTRATION_PATIENCE, seconds after which a step that does nothing ends the application.
        pauseMs: PDDREGISTRATION_PAUSE_MS, how long the event loop may be kept waiting during a run.
    """

    folder: Path
    install: bool = False
    levels: int = 0
    preset: str = ""
    size: tuple[int, int, int] | None = None
    patience: float = 2400.0
    pauseMs: float = 100.0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Options:
        """From the environment variables.

        Raises:
            ValueError: one is missing or cannot be read.
        """
        folder = environment.get("PDDREGISTRATION_OUT", "")
        if not folder:
            raise ValueError(
                "the environment variable PDDREGISTRATION_OUT is missing; set it to the folder that the report and the "
                "screenshots are to be written to, and start Slicer again"
            )
        return cls(
            Path(folder).expanduser().resolve(),
            environment.get("PDDREGISTRATION_INSTALL", "") == "1",
            int(_number(environment, "PDDREGISTRATION_LEVELS", cls.levels)),
            environment.get("PDDREGISTRATION_PRESET", ""),
            _size(environment.get("PDDREGISTRATION_SIZE", "")),
            _number(environment, "PDDREGISTRATION_PATIENCE", cls.patience),
            _number(environment, "PDDREGISTRATION_PAUSE_MS", cls.pauseMs),
        )


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise ValueError(f"{name} is '{text}'; a number is needed") from None


def _size(text: str) -> tuple[int, int, int] | None:
    if not text:
        return None
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise ValueError(f"PDDREGISTRATION_SIZE is '{text}'; three numbers are needed, such as 60x50x70")
    return int(parts[0]), int(parts[1]), int(parts[2])
