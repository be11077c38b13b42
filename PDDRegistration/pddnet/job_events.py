"""What a worker says while it works: one event a line, as strict JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pddnet.errors import InputError
from pddnet.strict_json import from_json, to_json

ErrorCode = Literal["input", "memory", "device", "weights", "missing", "internal"]


@dataclass(frozen=True)
class Started:
    """The worker is there; sent before anything heavy is loaded."""

    pid: int
    versions: Mapping[str, str]
    event: Literal["started"] = "started"


@dataclass(frozen=True)
class Progressed:
    """A stage begins; `fraction` of the whole, 0 to 1, is done."""

    stage: str
    fraction: float
    message: str
    event: Literal["progress"] = "progress"


@dataclass(frozen=True)
class Logged:
    """Something people should know, and read."""

    level: Literal["info", "warning"]
    message: str
    event: Literal["log"] = "log"


@dataclass(frozen=True)
class Alive:
    """Every second; `ticks` grows while the computation moves."""

    ticks: int
    event: Literal["alive"] = "alive"


@dataclass(frozen=True)
class Succeeded:
    """The last line of success: `files` as of `RegisterFiles` or `SyntheticFiles`, and a report."""

    files: Mapping[str, Any]
    report: Mapping[str, Any]
    event: Literal["result"] = "result"


@dataclass(frozen=True)
class Failed:
    """The last line of failure: a message for people with what to do, and a traceback or ''."""

    code: ErrorCode
    message: str
    details: str = ""
    event: Literal["error"] = "error"


Event = Started | Progressed | Logged | Alive | Succeeded | Failed
_EVENTS: dict[str, type[Event]] = {
    "started": Started,
    "progress": Progressed,
    "log": Logged,
    "alive": Alive,
    "result": Succeeded,
    "error": Failed,
}


def event_line(event: Event) -> str:
    """An event as one line of strict JSON, its end included."""
    return json.dumps(to_json(event), allow_nan=False) + "\n"


def parse_event(line: str) -> Event:
    """The event on a line.

    Raises:
        InputError: the line is no event.
    """
    try:
        table = json.loads(line)
    except ValueError as error:
        raise InputError(f"the worker said {line[:80]!r}, which is no event") from error
    name = table.get("event") if isinstance(table, Mapping) else None
    if name not in _EVENTS:
        raise InputError(f"the worker said {line[:80]!r}, which is no event")
    event: Event = from_json(_EVENTS[name], table, f"the event '{name}'")
    return event
