"""The application's central area without a window system: Slicer's own displayable managers, drawn off-screen on EGL.

The layout node decides, through Slicer's own layout logic, which views there are; each view is drawn as
qMRMLSliceView and qMRMLThreeDView draw it, and read back as an array.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # before VTK makes its first window

import numpy as np
import slicer
import vtk

from desktop.pictures import titleBar, writePng
from desktop.view_windows import SliceView, ThreeDView, registerManagers

BAR_HEIGHT = 20  # pixels of the bar with a view's name, as the application has above each view


def missing() -> str:
    """Why no picture can be drawn on this machine, "" if it can. Asked in a process of its own: VTK may abort."""
    global _missing
    if _missing is None:
        script = (
            "import vtk; w = vtk.vtkEGLRenderWindow(); w.SetSize(8, 8); w.Render(); print(w.SupportsOpenGL())"
        )
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        drawn = run.returncode == 0 and run.stdout.split()[-1:] == ["1"]
        _missing = (
            "" if drawn else f"EGL cannot draw here (install libegl1, libgl1-mesa-dri): {run.stderr[-200:]}"
        )
    return _missing


_missing: str | None = None


class LayoutManager:
    """Stand-in of qSlicerLayoutManager; give one to `slicer.app.setLayoutManager`, and `close()` it."""

    def __init__(self, scene, size=(640, 480)):
        """`size`: width and height in pixels of the whole area."""
        self._scene, self._size = scene, size
        self._views = {}  # view node ID -> view, made when first shown, kept like the application keeps its widgets
        self._rectangles = {}  # view node ID -> (left, top, width, height), of those shown now
        self._sliceLogics, self._viewLogics = vtk.vtkCollection(), vtk.vtkCollection()
        appLogic = slicer.app.applicationLogic()
        appLogic.SetSliceLogics(self._sliceLogics)
        appLogic.SetViewLogics(self._viewLogics)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
        registerManagers()
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)
        self._node = self._logic.GetLayoutNode()
        self._observations = [
            (self._node, self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update())),
            (scene, scene.AddObserver(slicer.vtkMRMLScene.EndCloseEvent, lambda *_: self._update())),
            (
                scene,
                scene.AddObserver(slicer.vtkMRMLScene.EndBatchProcessEvent, lambda *_: self._takeNotice()),
            ),
        ]
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    # the application's own names

    @property
    def layout(self):
        return self._node.GetViewArrangement()

    def setLayout(self, layout):
        self._node.SetViewArrangement(layout)
        self._update()

    def layoutLogic(self):
        return self._logic

    def sliceViewNames(self):
        return [view.node.GetLayoutName() for view in self._views.values() if isinstance(view, SliceView)]

    def sliceWidget(self, name):
        return next(
            (v for v in self._views.values() if isinstance(v, SliceView) and v.node.GetLayoutName() == name),
            None,
        )

    @property
    def threeDViewCount(self):
        return sum(isinstance(view, ThreeDView) for view in self._views.values())

    def threeDWidget(self, index):
        return [view for view in self._views.values() if isinstance(view, ThreeDView)][index]

    def resetSliceViews(self):
        for view in self._views.values():
            if isinstance(view, SliceView):
                view.sliceLogic().FitSliceToBackground()

    def resetThreeDViews(self):
        for view in self._views.values():
            if isinstance(view, ThreeDView):
                view.reset()

    def setMRMLScene(self, scene):
        """The application has taken another scene: these views are of no use any more."""
        if scene is not self._scene:
            self.close()

    # pictures

    def image(self, name):
        """(height, width, 3) uint8 of the slice view with this name, or of the 3D view \"1\"; row 0 is on top."""
        return next(view.image() for view in self._views.values() if view.node.GetLayoutName() == name)

    def layoutImage(self):
        """(height, width, 3) uint8 of all views of the layout with their names."""
        width, height = self._size
        canvas = np.full((height, width, 3), 60, np.uint8)
        for nodeID, (left, top, viewWidth, viewHeight) in self._rectangles.items():
            view = self._views[nodeID]
            canvas[top : top + BAR_HEIGHT, left : left + viewWidth] = titleBar(
                view.node, viewWidth, BAR_HEIGHT
            )
            canvas[top + BAR_HEIGHT : top + viewHeight, left : left + viewWidth] = view.image()
        return canvas

    def renderLayout(self, path):
        """Write `layoutImage()` as PNG."""
        writePng(path, self.layoutImage())

    def close(self):
        """Release windows, logics and observers."""
        for node, tag in self._observations:
            node.RemoveObserver(tag)
        self._observations = []
        for view in self._views.values():
            view.close()
        self._views, self._rectangles = {}, {}
        self._sliceLogics.RemoveAllItems()
        self._viewLogics.RemoveAllItems()
        self._logic.SetMRMLScene(None)
        if slicer.app.layoutManager() is self:
            slicer.app.setLayoutManager(None)

    def _update(self):
        """Make the views of the layout that are not there yet, and give each its place."""
        description = self._node.GetCurrentLayoutDescription()
        if not description:
            return
        self._rectangles = {}
        for name, className, rectangle in _places(ElementTree.fromstring(description), (0, 0, *self._size)):
            node = self._scene.GetSingletonNode(name, className)
            if node is None:
                continue
            if node.GetID() not in self._views:
                if className == "vtkMRMLSliceNode":
                    self._views[node.GetID()] = SliceView(self._scene, node, self._sliceLogics)
                elif className == "vtkMRMLViewNode":
                    self._views[node.GetID()] = ThreeDView(self._scene, node, self._viewLogics)
                else:
                    continue
            self._rectangles[node.GetID()] = rectangle
            self._views[node.GetID()].resize(rectangle[2], rectangle[3] - BAR_HEIGHT)

    def _takeNotice(self):
        """Displayable managers only mark what a read scene has changed, until something happens to their view."""
        for view in self._views.values():
            view.node.Modified()


def _places(element, rectangle):
    """(name, class, (left, top, width, height)) of the views below a layout element, which share it evenly."""
    if element.tag == "view":
        yield element.get("singletontag"), element.get("class"), rectangle
        return
    children = [child for child in element if child.tag in ("layout", "item", "view")]
    left, top, width, height = rectangle
    horizontal = element.tag == "layout" and element.get("type") == "horizontal"
    count = max(len(children), 1)
    for index, child in enumerate(children):
        if horizontal:
            first, last = width * index // count, width * (index + 1) // count
            yield from _places(child, (left + first, top, last - first - (index < count - 1), height))
        else:
            first, last = height * index // count, height * (index + 1) // count
            yield from _places(child, (left, top + first, width, last - first - (index < count - 1)))
