"""Reduces a recording of the running application's widget classes to `widget_api.json`.

`python record.py FULL.json` reads, for every class, its "attributes", "properties" (name to C++ type) and "signals",
and keeps the classes that the stand-ins offer. Names that a class shares with one it is "like" are written once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

REDUCED = Path(__file__).with_name("widget_api.json")
# views and a process: the module reaches views through the layout manager and starts processes without Qt
LEFT_OUT = {
    "QProcess",
    "qMRMLLayoutWidget",
    "qMRMLSegmentsTableView",
    "qMRMLSliceWidget",
    "qMRMLSpinBox",
    "qMRMLSubjectHierarchyComboBox",
    "qMRMLThreeDWidget",
    "qMRMLVolumeInfoWidget",
}


def names(api: dict) -> set[tuple[str, ...]]:
    """Everything that a class offers, as one set."""
    properties = {("property", *item) for item in api["properties"].items()}
    return (
        {("attribute", name) for name in api["attributes"]}
        | properties
        | {("signal", s) for s in api["signals"]}
    )


def described(offered: set[tuple[str, ...]], like: str) -> dict:
    """The other way round, with the class whose names come on top."""
    return {
        "like": like,
        "attributes": sorted(entry[1] for entry in offered if entry[0] == "attribute"),
        "properties": dict(sorted(entry[1:] for entry in offered if entry[0] == "property")),
        "signals": sorted(entry[1] for entry in offered if entry[0] == "signal"),
    }


def reduced(full: dict) -> dict:
    """Class name (without its module) to what it offers beyond the class it is "like"."""
    offered = {key.split(".")[1]: names(api) for key, api in full.items()}
    offered = {name: api for name, api in offered.items() if name not in LEFT_OUT}
    offered["QObject"] = set.intersection(*offered.values())
    order = sorted(offered, key=lambda name: (len(offered[name]), name))
    result = {}
    for position, name in enumerate(order):
        smaller = [other for other in order[:position] if offered[other] <= offered[name]]
        like = smaller[-1] if smaller else ""
        result[name] = described(offered[name] - offered.get(like, set()), like)
    return result


def complete(recording: dict, name: str) -> dict:
    """All that a class offers, from the reduced recording."""
    offered: set[tuple[str, ...]] = set()
    like = name
    while like:
        offered |= names(recording[like])
        like = recording[like]["like"]
    return described(offered, "")


if __name__ == "__main__":
    recording = reduced(json.loads(Path(sys.argv[1]).read_text()))
    lines = [f"{json.dumps(name)}: {json.dumps(api)}" for name, api in recording.items()]
    REDUCED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
