"""One click back: the views, the nodes and the scene are as before, whatever was on and whatever happened."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import slicer

from desktop import boot
from desktop.display_stage import SHAPE, Stage, ras
from PDDRegistrationLib import auxiliary, layouts, overlays
from PDDRegistrationLib.comparison import MODES
from PDDRegistrationLib.display import ResultDisplay

_OVERLAYS = ("setFolding", "setJacobian", "setUncertainty", "setOutlines", "setLinked")


@pytest.fixture
def stage(scene):
    """A phantom with folding, organs and a displacement that is not zero."""
    displacement = np.zeros((*SHAPE, 3))
    displacement[..., 1] = 3.0
    stage = Stage(scene, displacement=displacement)
    values = np.ones(SHAPE, np.float32)
    values[8:16, 12:20, 14:22] = -1
    slicer.util.updateVolumeFromArray(stage.nodes.jacobian, values)
    stage.nodes.fixedSegmentations = (stage.organs("fixed organ", (6, 8, 10), (18, 20, 24)),)
    stage.nodes.warpedSegmentations = (stage.organs("warped organ", (6, 8, 15), (18, 20, 29)),)
    stage.nodes.movingSegmentations = (stage.organs("moving organ", (6, 8, 4), (18, 20, 9)),)
    stage.manager.setLayout(
        slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView
    )  # all six slice views exist
    stage.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    stage.display.setNodes(stage.nodes)
    yield stage
    stage.close()


def _everything(stage, mode):
    """Turn on all there is in one mode."""
    stage.display.setMode(mode)
    for name in _OVERLAYS:
        getattr(stage.display, name)(True)
    stage.display.setTransformDisplay("grid", 12)
    stage.display.setTransformDisplay("arrows", 9)
    if mode == "reveal":
        stage.display.setRevealFollowsCursor(True)


@pytest.mark.parametrize("mode", MODES)
def test_restore_brings_back_pictures_and_nodes_from_every_mode(stage, mode):
    stage.slice("Red").JumpSliceByOffsetting(*ras(stage.matrix, (9, 10, 10)))
    picture, nodes = stage.manager.layoutImage(), stage.xml()
    _everything(stage, mode)
    assert (stage.manager.layoutImage() != picture).any()
    stage.slice("Red").SetSliceOffset(stage.slice("Red").GetSliceOffset() + 4)
    stage.display.restore()
    assert not stage.display.active
    _same(stage.xml(), nodes)
    assert (stage.manager.layoutImage() == picture).all()


def _same(after, before):
    """The same nodes with the same attributes; but the size of a view that is not shown is the window's affair."""
    assert set(after) == set(before)
    for name, text in before.items():
        hidden = name.endswith("+")
        assert _attributes(after[name], hidden) == _attributes(text, hidden)


def _attributes(text, hidden):
    return [part for part in text.split('" ') if not (hidden and part.strip().startswith("dimensions="))]


def test_switching_through_all_modes_restores_the_first_state(stage):
    picture, nodes = stage.manager.layoutImage(), stage.xml()
    for mode in (*MODES, *reversed(MODES)):
        _everything(stage, mode)
    stage.display.restore()
    _same(stage.xml(), nodes)
    assert (stage.manager.layoutImage() == picture).all()


def test_switching_the_mode_off_leaves_overlays_on(stage):
    stage.display.setFolding(True)
    alone = stage.manager.layoutImage()
    stage.display.setMode("checkerboard")
    stage.display.setMode("off")
    assert stage.display.folding
    assert (stage.manager.layoutImage() == alone).all()


def test_the_users_nodes_are_the_same_while_everything_is_on(stage):
    """All but the visibility of segmentations in slice views, which outlines replace."""
    theirs = [stage.nodes.fixed, stage.nodes.moving]
    before, arrays = stage.xml(), [slicer.util.arrayFromVolume(node).copy() for node in theirs]
    for mode in MODES:
        _everything(stage, mode)
        now = stage.xml()
        for node in (*theirs, *stage.nodes.fixedSegmentations, *stage.nodes.movingSegmentations):
            assert now[node.GetID()] == before[node.GetID()]
        for node in theirs:
            assert now[node.GetDisplayNodeID()] == before[node.GetDisplayNodeID()]
    for node, array in zip(theirs, arrays, strict=True):
        assert (slicer.util.arrayFromVolume(node) == array).all()


def test_twenty_rounds_leave_no_node_more(stage):
    counts = set()
    for number in range(20):
        _everything(stage, ("checkerboard", "reveal", "compareMoving")[number % 3])
        stage.display.restore()
        stage.display.setNodes(stage.nodes)
        left = {node.GetAttribute(auxiliary.PURPOSE) for node in auxiliary.auxiliaryNodes(stage.scene)}
        assert left == {"Jacobian colours", "uncertainty colours"}
        counts.add(stage.scene.GetNumberOfNodes())
    assert len(counts) == 1


def test_only_colours_are_saved_and_only_they_are_seen_by_slicers_dialog_for_saving(stage):
    for mode in ("checkerboard", "compareMoving"):
        _everything(stage, mode)
        for node in auxiliary.auxiliaryNodes(stage.scene):
            assert bool(node.GetHideFromEditors()) != bool(node.GetSaveWithScene()), node.GetName()
            assert bool(node.GetSaveWithScene()) == node.IsA("vtkMRMLColorNode"), node.GetName()


def test_nothing_holds_on_to_a_display_that_was_restored(stage):
    _everything(stage, "reveal")
    gone = weakref.ref(stage.display)
    stage.display.restore()
    stage.display = None
    gc.collect()
    assert gone() is None
    stage.display = ResultDisplay(stage.scene)


@pytest.mark.parametrize(
    ("name", "mode", "left"),
    [
        ("warped", "checkerboard", ("folding", "jacobian", "outlines")),
        ("jacobian", "blend", ("outlines",)),
        ("transform", "compareMoving", ("folding", "jacobian", "outlines")),
        ("fixed", "reveal", ()),
        ("moving", "flicker", ()),
    ],
)
def test_a_node_deleted_while_it_is_shown_ends_what_needs_it(stage, name, mode, left):
    changes = []
    stage.display.onChanged = lambda: changes.append(stage.display.mode)
    for switch in ("setFolding", "setJacobian", "setOutlines"):
        getattr(stage.display, switch)(True)
    stage.display.setTransformDisplay("grid", 12)
    stage.display.setMode(mode)
    stage.scene.RemoveNode(getattr(stage.nodes, name))
    assert changes == ["off" if name != "jacobian" else "blend"]
    for flag in ("folding", "jacobian", "outlines"):
        assert getattr(stage.display, flag) == (flag in left), flag
    stage.manager.layoutImage()
    stage.display.restore()
    assert stage.manager.layout == 3


def test_a_hidden_volume_deleted_by_someone_ends_the_mode(stage):
    stage.display.setMode("checkerboard")
    stage.scene.RemoveNode(auxiliary.findAuxiliary(stage.scene, "checkerboard"))
    assert stage.display.mode == "off"
    assert stage.composite("Red").GetBackgroundVolumeID() == stage.nodes.fixed.GetID()
    stage.display.setMode("checkerboard")


def test_deleted_segmentations_leave_the_other_outlines(stage):
    stage.display.setOutlines(True)
    stage.scene.RemoveNode(stage.nodes.warpedSegmentations[0])
    assert stage.display.outlines
    stage.scene.RemoveNode(stage.nodes.fixedSegmentations[0])
    assert not stage.display.outlines


@pytest.mark.parametrize("mode", MODES)
def test_a_closed_scene_ends_everything(stage, mode):
    changes = []
    stage.display.onChanged = lambda: changes.append(stage.display.mode)
    _everything(stage, mode)
    stage.scene.Clear(False)
    assert changes == ["off"]
    assert (stage.display.nodes, stage.display.active) == (None, False)
    assert auxiliary.auxiliaryNodes(stage.scene) == []
    assert stage.manager.layout != layouts.PAIRED_LAYOUT
    assert "register first" in stage.display.problem("blend")
    stage.manager.layoutImage()


def test_another_layout_chosen_by_the_user_stays_and_ends_side_by_side(stage):
    stage.display.setMode("sideBySide")
    stage.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    assert stage.display.mode == "off"
    assert stage.manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    assert stage.composite("Red").GetBackgroundVolumeID() == stage.nodes.fixed.GetID()


def test_views_that_come_with_another_layout_show_the_mode_too(stage):
    stage.display.setMode("flicker")
    stage.display.flip()
    stage.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView)
    assert stage.composite("Yellow+").GetBackgroundVolumeID() == stage.nodes.warped.GetID()
    stage.display.restore()
    assert stage.composite("Yellow+").GetBackgroundVolumeID() is None


def test_colours_and_maps_come_back_from_a_bundle(stage, tmp_path):
    stage.display.setJacobian(True)
    table = stage.nodes.jacobian.GetDisplayNode().GetColorNode().GetLookupTable()
    colours = [table.GetTableValue(index) for index in range(0, 256, 15)]
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    stage.manager.close()
    boot.freshScene()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    display = slicer.util.getNode("jacobian").GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel()) == (2.0, 1.0)
    table = display.GetColorNode().GetLookupTable()
    again = [table.GetTableValue(index) for index in range(0, 256, 15)]
    assert np.allclose(again, colours, atol=1 / 250)
    shown = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    assert shown.GetBackgroundVolumeID() == slicer.util.getNode("fixed").GetID()


def test_a_scene_saved_in_checkerboard_still_shows_the_fixed_scan(stage, tmp_path):
    stage.display.setMode("checkerboard")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    stage.display.restore()
    stage.manager.close()
    boot.freshScene()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    shown = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    assert shown.GetBackgroundVolumeID() == slicer.util.getNode("fixed").GetID()
    assert auxiliary.findAuxiliary(slicer.mrmlScene, "checkerboard") is None


def test_a_scene_saved_with_outlines_shows_the_users_segmentations_again(stage, tmp_path):
    stage.nodes.movingSegmentations[0].GetDisplayNode().SetVisibility2D(False)  # by the user
    stage.display.setOutlines(True)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    stage.display.restore()
    assert stage.nodes.fixedSegmentations[0].GetDisplayNode().GetAttribute(overlays.HIDDEN) is None
    stage.manager.close()
    boot.freshScene()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    shown = {
        name: slicer.util.getNode(name).GetDisplayNode()
        for name in ("fixed organ", "warped organ", "moving organ")
    }
    assert not any(display.GetVisibility2D() for display in shown.values())
    overlays.showHidden(slicer.mrmlScene)
    assert [display.GetVisibility2D() for display in shown.values()] == [1, 1, 0]
    assert not any(display.GetAttribute(overlays.HIDDEN) for display in shown.values())
