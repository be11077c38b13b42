"""The stand-in of `slicer.app`: only what a module asks of it, under the application's own names."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
from pathlib import Path


class Application:
    """Keeps the scene's surroundings alive and answers as qSlicerApplication does."""

    applicationName = "Slicer"
    applicationVersion = "5.12.4"
    majorVersion, minorVersion = 5, 12
    revision = "stand-in"
    documentationBaseUrl = "https://slicer.readthedocs.io/en/latest/"

    def __init__(self, temporaryPath: str):
        self.temporaryPath = temporaryPath
        atexit.register(shutil.rmtree, temporaryPath, ignore_errors=True)
        self.slicerHome = str(Path(sys.prefix))
        self._scene = self._logic = self._layoutManager = self._cache = None
        self._atStartup = []
        self._options = _CommandOptions()

    def adopt(self, scene):
        """Make `scene` the application's scene."""
        import slicer

        logic = slicer.vtkSlicerApplicationLogic()
        logic.SetTemporaryPath(self.temporaryPath)
        logic.SetMRMLScene(scene)
        self._scene, self._logic = scene, logic
        self._cache = _cacheManager(scene, self.temporaryPath)
        if self._layoutManager is not None:
            self._layoutManager.setMRMLScene(scene)

    def mrmlScene(self):
        return self._scene

    def applicationLogic(self):
        return self._logic

    def layoutManager(self):
        """None, as in an application without a main window, until views are made (`desktop.views`)."""
        return self._layoutManager

    def setLayoutManager(self, manager):
        self._layoutManager = manager

    def coreIOManager(self):
        return _InputOutput(self)

    def processEvents(self, *_):
        qt = sys.modules.get("qt")
        if qt is not None:
            qt.QApplication.processEvents()

    def testingEnabled(self):
        return False

    def commandOptions(self):
        return self._options

    def connect(self, signature, slot):
        if signature != "startupCompleted()":
            raise AttributeError(signature)
        self._atStartup.append(slot)
        return True

    def completeStartup(self):
        """What the application does once its window is shown: the signal startupCompleted(), once."""
        waiting, self._atStartup = self._atStartup, []
        for slot in waiting:
            slot()

    def exit(self, status=0):
        import qt

        qt.QApplication.exit(status)

    def topLevelWidgets(self):
        import qt

        return qt.QApplication.topLevelWidgets()

    def activeModalWidget(self):
        import qt

        return qt.QApplication.activeModalWidget()

    def startupEnvironment(self):
        return _Environment()

    def translate(self, _context, text):
        return text

    def moduleManager(self):
        return _ModuleManager()

    def userSettings(self):
        import qt

        return qt.QSettings()

    settings = userSettings


class _Environment:
    """As QProcessEnvironment."""

    def keys(self):
        return list(os.environ)

    def value(self, name):
        return os.environ[name]


class _CommandOptions:
    """As qSlicerCommandOptions."""

    runPythonAndExit = False


class _ModuleManager:
    def module(self, name):
        import slicer

        return getattr(slicer.modules, name.lower(), None)

    def connect(self, signature, _slot):
        if signature != "moduleAboutToBeUnloaded(QString)":
            raise AttributeError(signature)
        return True

    disconnect = connect


class _InputOutput:
    """Scenes and nodes to files and back."""

    def __init__(self, app):
        self._app = app

    def fileType(self, filename):
        return "SceneFile" if str(filename).endswith((".mrb", ".mrml")) else ""

    def fileWriterFileType(self, node):
        return f"{node.GetClassName()}File"

    def saveNodes(self, filetype, properties, _messages=None):
        """A scene as bundle or file, or one node through its default storage node."""
        scene, filename = self._app.mrmlScene(), properties["fileName"]
        if filetype != "SceneFile":
            storage = scene.GetNodeByID(properties["nodeID"]).CreateDefaultStorageNode()
            storage.SetFileName(filename)
            return bool(storage.WriteData(scene.GetNodeByID(properties["nodeID"])))
        if str(filename).endswith(".mrb"):
            return bool(scene.WriteToMRB(filename))
        scene.SetRootDirectory(str(Path(filename).parent))
        return bool(scene.Commit(filename))

    def loadNodes(self, filetype, properties, _loaded=None, _messages=None):
        """A scene from a bundle or file; other types are for the application."""
        scene, filename = self._app.mrmlScene(), properties["fileName"]
        clear = properties.get("clear", False)
        if filetype != "SceneFile":
            raise NotImplementedError(f"the stand-in loads scenes only, not {filename}")
        if str(filename).endswith(".mrb"):
            return bool(scene.ReadFromMRB(filename, clear))
        scene.SetURL(filename)
        return bool(scene.Connect() if clear else scene.Import())


def _cacheManager(scene, temporaryPath):
    """Reading a bundle unpacks it into the cache's own folder."""
    import slicer

    folder = Path(temporaryPath) / "cache"
    folder.mkdir(exist_ok=True)
    cache = slicer.vtkCacheManager()
    cache.SetRemoteCacheDirectory(str(folder))
    cache.SetMRMLScene(scene)
    scene.SetCacheManager(cache)
    manager = slicer.vtkDataIOManager()
    manager.SetCacheManager(cache)
    scene.SetDataIOManager(manager)
    return cache, manager
