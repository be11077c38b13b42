"""The stand-in of the application is good enough for what the other tests assume of it."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr


def test_the_scene_is_new_and_is_the_one_slicer_util_uses(scene):
    node = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16), name="volume")
    assert scene.GetFirstNodeByName("volume") is node
    assert slicer.mrmlScene is scene


def test_nothing_of_another_test_is_left_in_the_scene(scene):
    assert scene.GetFirstNodeByName("volume") is None
    assert slicer.util.arrayFromVolume.__module__ == "slicer.util"


def test_segments_come_from_arrays_through_the_logics(scene):
    volume = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16))
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    name = segmentation.GetSegmentation().AddEmptySegment("a", "liver")
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1:3, 2:4, 3:5] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, name, volume)
    assert (slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name, volume) == mask).all()


def test_a_bundle_comes_back(scene, tmp_path):
    slicer.util.addVolumeFromArray(np.arange(24.0).reshape(2, 3, 4), name="kept")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(False)
    assert scene.GetFirstNodeByName("kept") is None
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    back = slicer.util.arrayFromVolume(scene.GetFirstNodeByName("kept"))
    assert (back == np.arange(24.0).reshape(2, 3, 4)).all()


def test_texts_are_not_translated():
    assert tr("Register") == "Register"
