"""The module's own panel with a logic that the test drives: what the user would see, without a worker."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import slicer

from PDDRegistrationLib.display import ResultDisplay
from PDDRegistrationLib.event_loop import QtEventLoop
from PDDRegistrationLib.quality import makeQualityTable
from PDDRegistrationLib.settings import RegistrationOutputs
from PDDRegistrationLib.task import WAITING, Callbacks, Task
from PDDRegistrationLib.widget import RegistrationPanel

UI_FILE = Path(__file__).resolve().parents[2] / "PDDRegistration" / "Resources" / "UI" / "PDDRegistration.ui"

REPORT = {
    "seconds": 83.4,
    "peak_memory_mb": 2140.0,
    "preset": "fast",
    "device": "cpu",
    "fallback": None,
    "displacement_mm": {"mean": 6.2, "max": 24.8},
    "folding_percent": 0.0,
    "jacobian": {"min": 0.31, "max": 2.4, "std": 0.2},
    "uncertainty_mm": {"mean": 1.1, "max": 7.5},
    "inverse_residual_mm": {"mean": 0.02, "max": 0.4},
    "landmarks_mm": None,
    "segments": [
        {
            "segmentation": "Organs",
            "name": name,
            "dice_before": before,
            "dice_after": after,
            "hd95_before": 14.0,
            "hd95_after": 4.5,
            "displacement_mean_mm": 8.0,
            "displacement_max_mm": 21.0,
            "uncertainty_mean_mm": 1.3,
            "folding_percent": 0.0,
            "volume_ml": 900.0,
        }
        for name, before, after in (
            ("liver", 0.71, 0.93),
            ("spleen", 0.42, 0.88),
            ("left kidney", 0.35, 0.86),
        )
    ],
}


class DrivenLogic:
    """A logic whose tasks do what the test says next: `progress`, `finish`, `fail`."""

    def __init__(self, scene):
        self.scene, self.calls, self.reason = scene, [], ""
        self.task = None
        self._next = []

    def problem(self, inputs, _settings, _outputs=None):
        missing = next((role for role in ("fixed", "moving") if getattr(inputs, role) is None), None)
        return f"Choose the {missing} volume." if missing else self.reason

    def estimate(self, _inputs, _settings):
        return 2100.0

    def register(self, **arguments):
        return self._begin("register", arguments)

    def addSyntheticPair(self, **arguments):
        return self._begin("addSyntheticPair", arguments)

    def progress(self, fraction, message="level 3 of 8"):
        self._next.append(lambda task: task.tell("level 3", fraction, message))
        self.task.poll()

    def finish(self, outputs):
        self._next.append(lambda _task: outputs)
        self.task.poll()
        slicer.app.processEvents()  # the panel shows a result when the event loop has had its turn

    def fail(self, error):
        def failing(_task):
            raise error

        self._next.append(failing)
        self.task.poll()

    def _begin(self, name, arguments):
        self.calls.append((name, arguments))
        names = ("onProgress", "onFinished", "onFailed", "onCancelled")
        self.task = Task(self._work, Callbacks(*(arguments.get(key) for key in names)))
        return self.task

    def _work(self, task):
        while True:
            while self._next:
                outputs = self._next.pop(0)(task)
                if outputs is not None:
                    return outputs
            yield WAITING


class DrivenInstaller:
    """Asks if it is told to, and fails if it is told to."""

    question, error = "", None

    def __init__(self, ask, tell):
        self.ask, self.tell, self.used = ask, tell, 0

    def ensure(self):
        self.used += 1
        if self.error is not None:
            raise self.error


class DrivenNextWorker:
    """Prepares nothing and remembers what it was asked for: settings, "hold", "close"."""

    warm = None

    def __init__(self):
        self.calls = []

    def prepare(self, settings):
        self.calls.append(settings)

    def hold(self):
        self.calls.append("hold")

    def close(self):
        self.calls.append("close")


@contextmanager
def openPanel(scene, logic=None, makeInstaller=DrivenInstaller):
    """The panel as when the user has just chosen the module."""
    panel = RegistrationPanel(
        slicer.util.loadUI(str(UI_FILE)),
        logic or DrivenLogic(scene),
        scene,
        QtEventLoop(),
        display=ResultDisplay(scene),
        makeInstaller=makeInstaller,
        nextWorker=DrivenNextWorker(),
    )
    panel.enter()
    panel.widget.resize(420, 900)
    panel.widget.show()
    try:
        yield panel
    finally:
        panel.close()
        slicer.app.processEvents()
        panel.widget.delete()


def volume(name, size=(10, 12, 14)):
    """A small volume with a ball in it."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    array = (100 * (sum(axis**2 for axis in axes) < 0.6)).astype(np.int16)
    node = slicer.util.addVolumeFromArray(array, name=name)
    node.CreateDefaultDisplayNodes()
    return node


def segmentation(name, reference):
    """A segmentation with one segment."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    node.GetSegmentation().AddEmptySegment("liver", "liver")
    mask = (slicer.util.arrayFromVolume(reference) > 0).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, "liver", reference)
    return node


def result(fixed, moving, report=REPORT):
    """Outputs in the scene, as a registration leaves them."""
    scene = slicer.mrmlScene
    transform = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "moving to fixed")
    transform.SetNodeReferenceID(transform.GetFixedNodeReferenceRole(), fixed.GetID())
    transform.SetNodeReferenceID(transform.GetMovingNodeReferenceRole(), moving.GetID())
    shape = slicer.util.arrayFromVolume(fixed).shape
    table = scene.AddNode(makeQualityTable(report))
    table.SetName("quality")
    jacobian = slicer.util.addVolumeFromArray(np.ones(shape, np.float32), name="Jacobian")
    uncertainty = slicer.util.addVolumeFromArray(np.ones(shape, np.float32), name="uncertainty")
    for node in (jacobian, uncertainty):
        node.CreateDefaultDisplayNodes()
    return RegistrationOutputs(
        transform=transform,
        warpedVolume=volume("warped", shape),
        warpedSegmentations=[segmentation("Organs warped", fixed)],
        jacobian=jacobian,
        uncertainty=uncertainty,
        qualityTable=table,
        report=dict(report),
    )
