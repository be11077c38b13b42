"""Scenes with views for the tests of the display: a phantom of known values on an awkward grid."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from desktop import views
from desktop.displayed_result import determinant, segmentationNode, transformNode, volumeNode
from PDDRegistrationLib.display import DisplayedNodes, ResultDisplay

SHAPE = (24, 30, 36)  # k, j, i
SPACING = np.array([2.0, 2.5, 3.0])  # i, j, k in mm
FIXED, WARPED, MOVING = 100, 200, 300
WINDOW, LEVEL = 400, 200  # so that the three are grey values of 64, 128 and 191


def obliqueMatrix(degrees=20.0):
    """IJK to RAS of a turned and tilted grid, centred near but not at the origin."""
    turn, tilt = np.deg2rad(degrees), np.deg2rad(-degrees / 2)
    aboutZ = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    aboutX = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    matrix = np.eye(4)
    matrix[:3, :3] = aboutZ @ aboutX @ np.diag([-1, -1, 1]) @ np.diag(SPACING)
    middle = (np.array(SHAPE[::-1]) - 1) / 2
    matrix[:3, 3] = [5.0, -8.0, 12.0] - matrix[:3, :3] @ middle
    return matrix


def ras(matrix, kji):
    """World point of an array index (k, j, i)."""
    return matrix[:3, :3] @ np.asarray(kji, float)[::-1] + matrix[:3, 3]


class Stage:
    """A scene with a phantom's nodes, its views and its display."""

    def __init__(self, scene, matrix=None, displacement=None, layout=None, size=(500, 420)):
        reason = views.missing()
        if reason:
            pytest.skip(reason)
        self.scene, self.matrix = scene, obliqueMatrix() if matrix is None else matrix
        displacement = np.zeros((*SHAPE, 3)) if displacement is None else displacement
        self.nodes = DisplayedNodes(
            fixed=self._volume(np.full(SHAPE, FIXED, np.int16), "fixed"),
            moving=self._volume(np.full(SHAPE, MOVING, np.int16), "moving"),
            warped=self._volume(np.full(SHAPE, WARPED, np.int16), "warped"),
            transform=transformNode(scene, displacement, self.matrix),
            jacobian=volumeNode(determinant(displacement, SPACING), "jacobian", self.matrix),
            uncertainty=volumeNode(np.zeros(SHAPE, np.float32), "uncertainty", self.matrix),
        )
        self.manager = views.LayoutManager(scene, size)
        slicer.app.setLayoutManager(self.manager)
        if layout is not None:
            self.manager.setLayout(layout)
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            composite.SetBackgroundVolumeID(self.nodes.fixed.GetID())
        self.manager.resetSliceViews()
        self.display = ResultDisplay(scene)
        self.display.setNodes(self.nodes)

    def _volume(self, array, name):
        node = volumeNode(array, name, self.matrix)
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevel(WINDOW, LEVEL)
        return node

    def alongGrid(self, name="Red", k=12):
        """Put a view into the plane of one slice of the phantom; returns the slice node."""
        node = self.slice(name)
        node.RotateToVolumePlane(self.nodes.fixed)
        node.JumpSliceByOffsetting(*ras(self.matrix, (k, 15, 18)))
        return node

    def slice(self, name):
        return self.scene.GetSingletonNode(name, "vtkMRMLSliceNode")

    def composite(self, name):
        return self.scene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode")

    def image(self, name="Red"):
        return self.manager.image(name)

    def organs(self, name, kjiFrom, kjiTo):
        """A segmentation of one box."""
        labels = np.zeros(SHAPE, np.int32)
        labels[tuple(slice(a, b) for a, b in zip(kjiFrom, kjiTo, strict=True))] = 1
        return segmentationNode(self.scene, labels, name, self.nodes.fixed)

    def xml(self):
        """{node ID: its whole XML} of all nodes that a saved scene has."""
        self.scene.SetSaveToXMLString(1)
        self.scene.Commit()
        self.scene.SetSaveToXMLString(0)
        text = self.scene.GetSceneXMLString()
        elements = [part for part in text.split("<") if 'id="' in part]
        return {part.split('id="')[1].split('"')[0]: part for part in elements}

    def close(self):
        self.display.restore()
        self.manager.close()


def grey(value):
    """The grey level a value is shown with."""
    return 255 * (value - (LEVEL - WINDOW / 2)) / WINDOW
