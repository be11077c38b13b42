"""Small pictures as arrays: PNG files, text, and how far two pictures differ."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy


def writePng(path, image):
    """Write (height, width, 3) uint8, row 0 on top."""
    height, width, _ = image.shape
    data = vtk.vtkImageData()
    data.SetDimensions(width, height, 1)
    data.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(image[::-1]).reshape(-1, 3), deep=True))
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetCompressionLevel(9)
    writer.SetInputData(data)
    writer.Write()


def readPng(path):
    """(height, width, 3) uint8, row 0 on top."""
    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()


def difference(first, second):
    """(mean absolute difference in grey levels, part of the pixels that differ by more than 24 of 255)."""
    change = np.abs(first.astype(int) - second.astype(int))
    return float(change.mean()), float((change.max(axis=2) > 24).mean())


def titleBar(node, width, height):
    """The bar above a view: its colour, its label, the volumes it shows."""
    bar = np.empty((height, width, 3), np.uint8)
    bar[:] = np.multiply(node.GetLayoutColor(), 255).astype(np.uint8)
    stamp(bar, f"{node.GetLayoutLabel() or node.GetName()}   {_volumes(node)}", 6, (0, 0, 0))
    return bar


def stamp(image, text, left, colour):
    """Write text into a picture, in place, vertically in its middle."""
    properties, drawn = vtk.vtkTextProperty(), vtk.vtkImageData()
    properties.SetFontSize(12)
    properties.SetBold(True)
    size = [0, 0]
    vtk.vtkTextRenderer.GetInstance().RenderString(properties, text, drawn, size, 72)
    columns, rows, _ = drawn.GetDimensions()
    letters = vtk_to_numpy(drawn.GetPointData().GetScalars()).reshape(rows, columns, -1)
    alpha = letters[: size[1], : size[0], 3:][::-1] / 255
    top = max(0, (image.shape[0] - alpha.shape[0]) // 2)
    target = image[top : top + alpha.shape[0], left : left + alpha.shape[1]]
    alpha = alpha[: target.shape[0], : target.shape[1]]
    target[:] = (target * (1 - alpha) + np.array(colour) * alpha).astype(np.uint8)


def _volumes(node):
    """What the view shows, as the application's data probe writes it into the corner."""
    if not node.IsA("vtkMRMLSliceNode"):
        return ""
    scene = node.GetScene()
    composite = slicer.vtkMRMLSliceLogic.GetSliceCompositeNode(node)
    parts = []
    for letter, nodeID in (
        ("F", composite.GetForegroundVolumeID()),
        ("B", composite.GetBackgroundVolumeID()),
    ):
        volume = scene.GetNodeByID(nodeID) if nodeID else None
        if volume is not None:
            share = f" ({composite.GetForegroundOpacity():.0%})" if letter == "F" else ""
            parts.append(f"{letter}: {volume.GetName()}{share}")
    return "   ".join(parts)


def pixelOf(sliceNode, ras):
    """(row, column) of a point in world RAS mm in the picture of a slice view."""
    toXy = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(sliceNode.GetXYToRAS(), toXy)
    x, y, _, _ = toXy.MultiplyPoint([*ras, 1.0])
    return sliceNode.GetDimensions()[1] - 1 - round(y), round(x)


def colourAt(image, sliceNode, ras):
    """(red, green, blue) as int at a point in world RAS mm."""
    row, column = pixelOf(sliceNode, ras)
    return image[row, column].astype(int)
