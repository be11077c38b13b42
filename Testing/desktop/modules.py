"""A scripted module in the application: its entry in `slicer.modules`, and the widget that its panel lives in."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import slicer
from PySide6.QtWidgets import QVBoxLayout

from desktop.boot import Module
from desktop.widgets import wrap
from desktop.widgets.mrml_views import qMRMLWidget
from desktop.widgets.proxy import proxyClass


def load(path) -> ScriptedModule:
    """Load the module in this file and list it, as the application does at its start."""
    path = Path(path).resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    slicer.qSlicerScriptedLoadableModule = ScriptedModule
    slicer.qSlicerScriptedLoadableModuleWidget = proxyClass(qSlicerScriptedLoadableModuleWidget)
    module = ScriptedModule(path)
    setattr(slicer.modules, module.name.lower(), module)
    module.load()
    return module


class ScriptedModule(Module):
    """Stand-in of qSlicerScriptedLoadableModule."""

    def __init__(self, path: Path):
        super().__init__(path.stem, path=str(path))
        self._description = SimpleNamespace(path=self.path)
        self._representation = self._instance = None

    def load(self):
        spec = importlib.util.spec_from_file_location(self.name, self.path)
        sys.modules[self.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[self.name])
        self._instance = getattr(sys.modules[self.name], self.name)(self._description)

    def logic(self):
        raise NotImplementedError("the application gives a C++ object here; use slicer.util.getModuleLogic()")

    def widgetRepresentation(self):
        """The widget; made, with the module's panel in it, when it is first asked for."""
        if self._representation is None:
            self._representation = qSlicerScriptedLoadableModuleWidget(self.name)
            self._representation.reload()
        return wrap(self._representation)


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):  # noqa: N801 (the application's name)
    """Holds what the Python class of the module's widget adds to its layout."""

    knownToPython = True

    def __init__(self, moduleName: str):
        super().__init__()
        self._moduleName = moduleName
        self._self = None
        QVBoxLayout(self)
        self.setMRMLScene(slicer.mrmlScene)

    def self(this):  # noqa: N805 (the method's own name is self)
        return this._self

    def reload(self):
        className = f"{self._moduleName}Widget"
        self._self = getattr(sys.modules[self._moduleName], className)(wrap(self))
        setattr(slicer.modules, className, self._self)
        self._self.setup()

    def enter(self):
        self._self.enter()

    def exit(self):
        self._self.exit()
