"""One view of the application each: Slicer's logic and displayable managers on an off-screen render window."""

from __future__ import annotations

import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLTransformsDisplayableManager2D",
)
_THREED_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLTransformsDisplayableManager3D",
)


def registerManagers():
    """Let new views have the displayable managers that the application's views have."""
    _register(slicer.vtkMRMLSliceViewDisplayableManagerFactory, _SLICE_MANAGERS)
    _register(slicer.vtkMRMLThreeDViewDisplayableManagerFactory, _THREED_MANAGERS)


def _register(factory, names):
    instance = factory.GetInstance()
    instance.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    for name in names:
        if not instance.IsDisplayableManagerRegistered(name):
            instance.RegisterDisplayableManager(name)


class _View:
    """A render window that is read back."""

    def __init__(self, node, factory):
        self.node = node
        self.window, self.renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
        self.window.SetOffScreenRendering(True)
        self.window.SetMultiSamples(0)
        self.window.SetAlphaBitPlanes(True)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.interactor.EnableRenderOff()
        self.interactor.SetRenderWindow(self.window)
        self.group = factory.GetInstance().InstantiateDisplayableManagers(self.renderer)

    def grab(self):
        self.window.Render()
        capture = vtk.vtkWindowToImageFilter()
        capture.SetInput(self.window)
        capture.ReadFrontBufferOff()
        capture.ShouldRerenderOff()
        capture.Update()
        image = capture.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()

    def close(self):
        self.group.SetMRMLDisplayableNode(None)
        self.interactor.SetRenderWindow(None)
        self.window.RemoveRenderer(self.renderer)
        self.window.Finalize()


class SliceView(_View):
    """Stand-in of qMRMLSliceWidget with its view."""

    def __init__(self, scene, node, sliceLogics):
        self._logics = sliceLogics
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        sliceLogics.AddItem(self._logic)  # before the displayable managers ask for it
        super().__init__(node, slicer.vtkMRMLSliceViewDisplayableManagerFactory)
        self._logic.SetSliceNode(node)
        self._logic.SetMRMLScene(scene)
        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.actor = vtk.vtkActor2D()
        self.actor.SetMapper(self.mapper)
        self.actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddActor(self.actor)
        self.group.SetMRMLDisplayableNode(node)

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self.node

    def resize(self, width, height):
        self.window.SetSize(width, height)
        self._logic.ResizeSliceNode(width, height)

    def image(self):
        connection = self._logic.GetImageDataConnection()
        self.actor.SetVisibility(connection is not None)
        self.mapper.SetInputConnection(connection)
        return self.grab()

    def close(self):
        self.mapper.SetInputConnection(None)
        super().close()
        self._logics.RemoveItem(self._logic)
        self._logic.SetMRMLScene(None)


class ThreeDView(_View):
    """Stand-in of qMRMLThreeDWidget with its view."""

    def __init__(self, scene, node, viewLogics):
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._logic.SetMRMLScene(scene)
        viewLogics.AddItem(self._logic)
        super().__init__(node, slicer.vtkMRMLThreeDViewDisplayableManagerFactory)
        self.renderer.SetBackground(node.GetBackgroundColor())
        self.renderer.SetBackground2(node.GetBackgroundColor2())
        self.renderer.GradientBackgroundOn()
        self.group.SetMRMLDisplayableNode(node)

    def mrmlViewNode(self):
        return self.node

    def reset(self):
        self.renderer.ResetCamera()

    def resize(self, width, height):
        self.window.SetSize(width, height)

    def image(self):
        self.renderer.ResetCameraClippingRange()
        return self.grab()

    def close(self):
        super().close()
        self._logic.SetMRMLScene(None)
