"""The demonstration: two made-up patients registered in a scene, and everything of it as files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from desktop import boot, views
from desktop.gallery import Gallery
from desktop.pictures import writePng
from pddnet import demo
from pddnet.errors import InputError
from pddnet.interop.files import check_output_folder, replacing_folder
from pddnet.job import SyntheticRequest
from pddnet.progress import Progress
from pddnet.strict_json import to_json
from PDDRegistrationLib import RegistrationLogic
from PDDRegistrationLib.parameters import RegistrationParameters
from PDDRegistrationLib.quality import writeCsv
from PDDRegistrationLib.settings import RegistrationOutputs, RegistrationSettings

_PAIR_MADE, _REGISTERED, _DRAWN = 0.05, 0.85, 0.97  # shares of the progress bar
_SEEN = "liver"  # the organ whose middle the slices go through


class Demonstration:
    """Makes it step by step.

    Args:
        settings: how to register.
        pair: which patients.
        onProgress: told about each stage.
        check: asked every now and then; raises what is to end the work.
    """

    def __init__(
        self,
        settings: RegistrationSettings,
        pair: SyntheticRequest,
        onProgress: Callable[[Progress], None],
        check: Callable[[], None],
    ):
        self._settings, self._pair = settings, pair
        self._onProgress, self._check = onProgress, check
        self.scene = boot.freshScene()
        self.logic = RegistrationLogic(self.scene)
        self.parameters = RegistrationParameters.create(self.scene)

    def addPair(self):
        """Two patients with their organs, as the registration's inputs."""
        began, total = 0.0, _PAIR_MADE
        nodes = self._finished(
            self.logic.addSyntheticPair(
                self._pair, self._settings, blocking=False, onProgress=self._share(began, total)
            )
        )
        with self.parameters.batch():
            self.parameters.fixed, self.parameters.moving = nodes["fixed"], nodes["moving"]
            self.parameters.segmentations = (nodes["movingSegmentation"],)
            self.parameters.fixedSegmentation = nodes["fixedSegmentation"]
            for name, value in vars(self._settings).items():
                setattr(self.parameters, name, value)

    def register(self) -> RegistrationOutputs:
        """As the panel's button does."""
        outputs = self._finished(
            self.logic.register(
                **vars(self.parameters.inputs()),
                **vars(self.parameters.settings()),
                blocking=False,
                onProgress=self._share(_PAIR_MADE, _REGISTERED),
            )
        )
        self.parameters.setResult(outputs)
        return outputs

    def draw(self, folder: Path, outputs: RegistrationOutputs):
        """The views in all ways, the panel, and what the saved scene shows; the scene is left like that."""
        fixedOrgans = self.parameters.fixedSegmentation
        for node in (fixedOrgans, *self.parameters.segmentations):
            node.GetDisplayNode().SetVisibility(False)
        warped = outputs.warpedSegmentations[0]
        warped.GetDisplayNode().SetVisibility2D(False)
        warped.CreateClosedSurfaceRepresentation()
        gallery = Gallery(self.scene, self.logic, self.parameters.fixed, middleOf(fixedOrgans, _SEEN))
        try:
            for name, image in gallery.pictures():
                self.tell("pictures", _REGISTERED, f"drawing {name}")
                writePng(folder / (f"{name}.png" if name == "panel" else f"view-{name}.png"), image)
            warped.GetDisplayNode().SetVisibility2D(True)
            writePng(folder / "scene.png", gallery.views.layoutImage())
        finally:
            gallery.close()

    def save(self, folder: Path, outputs: RegistrationOutputs):
        """The scene as Slicer's bundle, and its nodes as the files that Slicer would write."""
        self.tell("write", _DRAWN, "writing the scene")
        if not self.scene.WriteToMRB(str(folder / "scene.mrb")):
            raise OSError(f"the scene could not be written to {folder}; is the disk full?")
        files = {
            "fixed.nii.gz": self.parameters.fixed,
            "moving.nii.gz": self.parameters.moving,
            "warped.nii.gz": outputs.warpedVolume,
            "jacobian.nii.gz": outputs.jacobian,
            "uncertainty.nii.gz": outputs.uncertainty,
            "fixed-organs.seg.nrrd": self.parameters.fixedSegmentation,
            "moving-organs.seg.nrrd": self.parameters.segmentations[0],
            "warped-organs.seg.nrrd": outputs.warpedSegmentations[0],
            "transform.h5": outputs.transform,
        }
        for name, node in files.items():
            self.tell("write", _DRAWN, f"writing {name}")
            storage = node.CreateDefaultStorageNode()
            storage.SetFileName(str(folder / name))
            if not storage.WriteData(node):
                raise OSError(f"{name} could not be written to {folder}; is the disk full?")
        writeCsv(outputs.report, folder / "quality.csv")

    def tell(self, stage: str, fraction: float, message: str):
        self._check()
        self._onProgress(Progress(stage, fraction, message))

    def _share(self, start: float, end: float):
        """Of the whole progress, for a task."""
        return lambda told: self.tell(told.stage, start + (end - start) * told.fraction, told.message)

    def _finished(self, task):
        """What a task makes; it is cancelled when `check` ends the work."""
        try:
            while not task.poll():
                self._check()
                time.sleep(0.02)
        finally:
            task.cancel()
        if task.error is not None:
            raise task.error
        return task.outputs


def runDemo(
    out: Path,
    settings: RegistrationSettings,
    pair: SyntheticRequest,
    onProgress: Callable[[Progress], None],
    check: Callable[[], None],
) -> dict:
    """Write the whole demonstration into the folder `out`, or nothing; returns what report.json holds.

    Raises:
        InputError: the folder cannot be used, or nothing can be drawn on this machine.
        RegistrationError: the registration failed.
    """
    check_output_folder(out)
    if views.missing():
        raise InputError(views.missing())
    began = time.perf_counter()
    demonstration = Demonstration(settings, pair, onProgress, check)
    demonstration.addPair()
    outputs = demonstration.register()
    with replacing_folder(out) as folder:
        demonstration.draw(folder, outputs)
        demonstration.save(folder, outputs)
        report = dict(outputs.report) | _scores(outputs.report["segments"])
        report |= {"synthetic": asdict(pair), "figure": "panel.png", "transform": "transform.h5"}
        report["demo_seconds"] = time.perf_counter() - began
        report["files"] = sorted([*(path.name for path in folder.iterdir()), "report.json"])
        report = dict(to_json(report))
        text = json.dumps(report, indent=2, allow_nan=False)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")
        demonstration.tell("done", 1.0, "done")
    return report


def summary(report: dict, out: Path) -> str:
    """The demonstration in a few lines for people: as `pddnet demo`, and what to open first."""
    return f"{demo.summary(report, out)}\nLook at panel.png and view-*.png; scene.mrb opens in 3D Slicer."


def middleOf(segmentation, name: str) -> tuple[float, float, float]:
    """The middle of a segment in world RAS mm."""
    identity = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    return tuple(segmentation.GetSegmentCenterRAS(identity))


def _scores(segments: list[dict]) -> dict:
    before, after = (
        {row["name"]: row[key] or 0.0 for row in segments if row["dice_before"] is not None}
        for key in ("dice_before", "dice_after")
    )
    return {
        "dice_before": before,
        "dice_after": after,
        "mean_dice_before": float(np.mean(list(before.values()))),
        "mean_dice_after": float(np.mean(list(after.values()))),
    }
