"""Nodes that forgive nothing, for the tests of the conversion, and what drives its steps."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from pddnet.geometry import Frame, ImageGeometry
from PDDRegistrationLib.mrml_geometry import FLIP, toVtk


def driven(steps):
    """What a generator returns at its end."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def longestStep(steps) -> float:
    """Seconds of the longest step of a generator."""
    longest = 0.0
    while True:
        began = time.perf_counter()
        try:
            next(steps)
        except StopIteration:
            return max(longest, time.perf_counter() - began)
        longest = max(longest, time.perf_counter() - began)


def volumeNode(scene, geometry: ImageGeometry, voxels=None, name="volume", kind="vtkMRMLScalarVolumeNode"):
    """A volume node of the scene."""
    if voxels is None:
        voxels = np.random.default_rng(1).integers(-1000, 1000, geometry.shape).astype(np.int16)
    node = slicer.util.addVolumeFromArray(
        voxels, ijkToRAS=toVtk(geometry.matrix(Frame.INDEX, Frame.RAS)), name=name, nodeClassName=kind
    )
    assert node.GetScene() is scene
    return node


def linearNode(scene, matrix, name="linear"):
    """A linear transform node: 4x4, RAS, to parent."""
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(toVtk(np.asarray(matrix, dtype=float)))
    return node


def rigid():
    """4x4: a turn about an oblique axis and a shift."""
    transform = vtk.vtkTransform()
    transform.Translate(11.0, -7.0, 23.0)
    transform.RotateWXYZ(31.0, 0.3, -0.5, 0.8)
    return np.array([[transform.GetMatrix().GetElement(r, c) for c in range(4)] for r in range(4)])


def scaled():
    """4x4: the same with unequal scales."""
    return rigid() @ np.diag([1.2, 0.8, 1.1, 1.0])


def sheared():
    """4x4: the same with shear, so that the axes of a grid under it are not at right angles."""
    shear = np.eye(4)
    shear[0, 1], shear[2, 0] = 0.3, -0.2
    return rigid() @ shear


def bentNode(scene, centre_ras, amplitude_mm=6.0, spacing_mm=20.0, name="bent", seed=3):
    """A smooth B-spline transform node (to parent) with control points `spacing_mm` apart around a point, RAS."""
    count = 12
    image = vtk.vtkImageData()
    image.SetDimensions(count, count, count)
    image.SetSpacing(spacing_mm, spacing_mm, spacing_mm)
    image.SetOrigin(*(np.asarray(centre_ras) - spacing_mm * (count - 1) / 2))
    rough = np.random.default_rng(seed).normal(size=(count, count, count, 3))
    smooth = sum(np.roll(rough, shift, axis) for axis in range(3) for shift in (-1, 0, 1)) / 9
    smooth *= amplitude_mm / np.abs(smooth).max()
    image.GetPointData().SetScalars(numpy_to_vtk(smooth.reshape(-1, 3), deep=True))
    transform = slicer.vtkOrientedBSplineTransform()
    transform.SetCoefficientData(image)
    transform.SetBorderModeToZero()
    node = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", name)
    node.SetAndObserveTransformToParent(transform)
    return node


def exact(transformNode, points_lps, toWorld: bool):
    """Points (N, 3), LPS, through a transform node of the scene, one by one."""
    general = vtk.vtkGeneralTransform()
    (transformNode.GetTransformToWorld if toWorld else transformNode.GetTransformFromWorld)(general)
    ras = np.asarray(points_lps) * (-1, -1, 1)
    return np.array([general.TransformPoint(point) for point in ras]) * (-1, -1, 1)


def sitkImage(voxels, geometry: ImageGeometry, vector=False) -> sitk.Image:
    """An array (D, H, W) or (D, H, W, 3) as SimpleITK has it."""
    image = sitk.GetImageFromArray(voxels, isVector=vector)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(np.ravel(geometry.direction).tolist())
    return image


def sitkPoints(field, points_lps, folder: Path):
    """Points (N, 3) through a `FieldFile`, by SimpleITK's displacement field transform."""
    vectors = np.load(folder / field.array).astype(np.float64)
    transform = sitk.DisplacementFieldTransform(sitkImage(vectors, field.geometry, vector=True))
    return np.array([transform.TransformPoint(point) for point in np.asarray(points_lps).tolist()])


def applied(matrix_ras, points_lps):
    """Points (N, 3), LPS, through a 4x4 in RAS."""
    matrix = FLIP @ matrix_ras @ FLIP
    return np.asarray(points_lps) @ matrix[:3, :3].T + matrix[:3, 3]


def pointsIn(geometry: ImageGeometry, count=200, seed=5):
    """Random points inside a grid, (N, 3), LPS."""
    return geometry.to_lps(np.random.default_rng(seed).uniform(0, np.asarray(geometry.size) - 1, (count, 3)))


def state(*nodes):
    """What changes when a node is changed: times of change and the content's bytes."""
    return [(node.GetMTime(), _content(node)) for node in nodes]


def _content(node):
    if node.IsA("vtkMRMLSegmentationNode"):
        segmentation = node.GetSegmentation()
        images = [
            segmentation.GetSegment(i).GetRepresentation("Binary labelmap")
            for i in segmentation.GetSegmentIDs()
        ]
        times = [segmentation.GetSegment(i).GetMTime() for i in segmentation.GetSegmentIDs()]
        return [
            segmentation.GetMTime(),
            times,
            [(image.GetMTime(), image.GetExtent()) for image in images if image],
        ]
    if node.IsA("vtkMRMLVolumeNode"):
        return [node.GetImageData().GetMTime(), slicer.util.arrayFromVolume(node).tobytes()]
    return node.GetTransformToParent().GetMTime() if node.IsA("vtkMRMLTransformNode") else None
