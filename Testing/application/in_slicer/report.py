"""What happened, step by step, as report.json for programs and report.txt for people; written after every step."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

UNFINISHED = "did not end: the application hung or was ended; see hang.txt"


class Skipped(Exception):
    """A step that cannot be done here, such as a download without a network."""


@dataclass
class StepRecord:
    """One step; it counts as failed until it has ended well."""

    name: str
    passed: bool = False
    skipped: bool = False
    seconds: float = 0.0
    message: str = UNFINISHED
    details: str = ""  # a traceback
    notes: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    screenshots: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "skipped" if self.skipped else "passed" if self.passed else "FAILED"


class Report:
    """All steps.

    Args:
        folder: where the two files are written.
        about: the application and the machine.
        expected: how many steps there are to be.
    """

    def __init__(self, folder: Path, about: dict[str, Any], expected: int) -> None:
        self._folder, self._about, self._expected = folder, about, expected
        self.steps: list[StepRecord] = []

    @property
    def exitCode(self) -> int:
        """0 where every step was done and none failed, else 1."""
        done = len(self.steps) == self._expected and all(step.passed or step.skipped for step in self.steps)
        return 0 if done else 1

    def begin(self, name: str) -> StepRecord:
        self.steps.append(StepRecord(name))
        self.save()
        return self.steps[-1]

    def save(self) -> None:
        _write(
            self._folder / "report.json",
            json.dumps(
                {
                    "passed": self.exitCode == 0,
                    "about": self._about,
                    "expected_steps": self._expected,
                    "steps": [asdict(step) for step in self.steps],
                },
                indent=1,
            ),
        )
        _write(self._folder / "report.txt", self.text())

    def text(self) -> str:
        lines = [f"{name}: {value}" for name, value in self._about.items()] + [""]
        for step in self.steps:
            lines.append(f"{step.verdict:8}{step.seconds:7.1f} s  {step.name}")
            told = [step.message] if step.message else []
            told += [f"{name}: {value:g}" for name, value in step.measured.items()]
            lines += [f"{'':19}{line}" for text in told for line in text.splitlines()]
        failed = sum(not (step.passed or step.skipped) for step in self.steps)
        skipped = sum(step.skipped for step in self.steps)
        lines += ["", f"{len(self.steps)} of {self._expected} steps, {failed} failed, {skipped} skipped"]
        return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    """Complete or not at all: the application may be ended at any moment."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
