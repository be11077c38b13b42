"""What a registration is asked with, what it makes and how it fails: plain data, without a scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class RegistrationError(Exception):
    """A registration that could not be done; the text says what to do.

    `code` tells what kind of failure it is: those of the worker ("input", "memory", "device", "weights", "missing",
    "internal") and of its process ("crash", "hang", "python", "files"). `details` are for a report, "" where there are
    none.
    """

    def __init__(self, code: str, message: str, details: str = ""):
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


@dataclass(frozen=True)
class RegistrationSettings:
    """How to register; None leaves the decision to the preset."""

    preset: str = "generic"  # a built-in preset's name, or a .toml file
    device: str = "auto"
    globalStage: bool | None = None
    levels: int | None = None
    smoothness: float = 1.0  # a factor on the preset's own
    instanceIterations: int | None = None
    weights: str = ""  # built-in, a published name, or a file
    inverse: bool = False  # also the inverse transform, sampled on the moving grid
    python: str = ""  # the worker's Python; "" is Slicer's own
    keepFolder: str = ""  # a folder that gets a copy of the run's files; "" keeps none


@dataclass(frozen=True)
class RegistrationInputs:
    """The MRML nodes that are read and never changed."""

    fixed: Any
    moving: Any
    segmentations: tuple[Any, ...] = ()  # segmentation or label-map nodes on the moving side, to transfer
    fixedSegmentation: Any = None  # compared with the transferred ones, by segment name
    fixedLandmarks: Any = None  # point lists in the same order
    movingLandmarks: Any = None
    fixedMask: Any = None
    movingMask: Any = None
    initialTransform: Any = None  # transform node as it would be applied to the moving volume


@dataclass
class RegistrationOutputs:
    """Before a run the nodes to update (None: make one); after it what there is."""

    transform: Any = None
    warpedVolume: Any = None
    warpedSegmentations: list[Any] = field(default_factory=list)  # in the order of the inputs
    jacobian: Any = None
    uncertainty: Any = None
    inverseTransform: Any = None
    qualityTable: Any = None
    folderItem: int = 0  # the subject hierarchy's item that holds them; 0 is none
    report: dict[str, Any] = field(default_factory=dict)  # as the worker sent it
