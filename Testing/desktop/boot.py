"""What the application has done by the time a module is loaded: a scene, its logics, `slicer.app`, `slicer.modules`."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

SITE = Path(__file__).resolve().parent / "site"
_TESTING = str(SITE.parent.parent)
_LOGICS = {
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Colors": "vtkMRMLColorLogic",  # without the colour files, which slicer-core lacks
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
}
_SINGLETONS = ("vtkMRMLCrosshairNode", "vtkMRMLLayoutNode")


def _slicer():
    """The slicer package, imported so that it does not take the folder Testing/slicer for a part of itself.

    On import, slicer-core runs every Python file in a folder named slicer on sys.path.
    """
    if "slicer" not in sys.modules:
        hidden = [entry for entry in sys.path if str(Path(entry or ".").resolve()) == _TESTING]
        sys.path[:] = [entry for entry in sys.path if entry not in hidden]
        try:
            importlib.import_module("slicer")
        finally:
            sys.path[:0] = hidden
    return sys.modules["slicer"]


def start(withWidgets=False):
    """Make the application's surroundings, once; the scene is the same until `freshScene()`."""
    slicer = _slicer()
    if not hasattr(slicer, "app"):
        for path, entry in ((sys.path, SITE), (slicer.__path__, SITE / "slicer")):
            path.append(str(entry))
        from desktop.application import Application

        slicer.app = Application(tempfile.mkdtemp(prefix="slicer-stand-in-"))
        slicer.selfTests = {}
        slicer.modules = SimpleNamespace()
        freshScene()
    if withWidgets:
        from desktop import widgets

        widgets.install(slicer)
    return slicer.mrmlScene


def freshScene():
    """A new scene in place of the present one, as empty as when the application has just started."""
    slicer = _slicer()
    scene = slicer.vtkMRMLScene()
    slicer.app.adopt(scene)
    for name, className in _LOGICS.items():
        logic = getattr(slicer, className)()
        logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        slicer.app.applicationLogic().SetModuleLogic(name, logic)
        if name == "Colors":
            slicer.app.applicationLogic().SetColorLogic(logic)
        logic.SetMRMLScene(scene)
        setattr(slicer.modules, name.lower(), Module(name, logic))
    for className in _SINGLETONS:
        node = getattr(slicer, className)()
        node.SetSingletonTag("default" if "Crosshair" in className else "vtkMRMLLayoutNode")
        scene.AddNode(node)
    slicer.mrmlScene = scene
    return scene


class Module:
    """One entry of `slicer.modules`."""

    def __init__(self, name, logic=None, path=""):
        self.name = name
        self.path = path
        self._logic = logic

    def logic(self):
        return self._logic
