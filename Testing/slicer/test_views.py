"""The off-screen views show what the application's would: the tests of the display stand on this."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from desktop import views
from desktop.display_stage import SHAPE, Stage, grey, ras
from desktop.displayed_result import volumeNode
from desktop.pictures import colourAt, difference, readPng, writePng


@pytest.fixture
def stage(scene):
    stage = Stage(scene)
    yield stage
    stage.close()


def test_a_voxel_of_an_oblique_volume_is_drawn_where_it_lies(stage):
    values = np.full(SHAPE, 50, np.int16)
    values[12, 10:14, 20:24] = 350
    volume = volumeNode(values, "block", stage.matrix)
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(400, 200)
    view = stage.alongGrid(k=12)
    stage.composite("Red").SetBackgroundVolumeID(volume.GetID())
    image = stage.image()
    assert abs(colourAt(image, view, ras(stage.matrix, (12, 11.5, 21.5)))[0] - grey(350)) <= 2
    assert abs(colourAt(image, view, ras(stage.matrix, (12, 11.5, 16)))[0] - grey(50)) <= 2  # beside it
    assert abs(colourAt(image, view, ras(stage.matrix, (12, 18, 14)))[0] - grey(50)) <= 2  # its mirror image
    view.JumpSliceByOffsetting(*ras(stage.matrix, (15, 11.5, 21.5)))
    assert abs(colourAt(stage.image(), view, ras(stage.matrix, (15, 11.5, 21.5)))[0] - grey(50)) <= 2


def test_the_views_follow_the_layout_node(stage):
    assert stage.manager.sliceViewNames() == ["Red", "Green", "Yellow"]
    stage.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView)
    assert stage.manager.sliceViewNames() == ["Red", "Green", "Yellow", "Red+", "Green+", "Yellow+"]
    assert stage.composite("Green+") is not None
    image = stage.manager.layoutImage()
    assert image.shape == (420, 500, 3)
    assert tuple(image[10, 160]) != tuple(image[225, 160])  # the bars of Red and Red+


def test_views_are_linked_by_slicers_own_logic_within_a_group(stage):
    stage.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView)
    red, plus = stage.slice("Red"), stage.slice("Red+")
    logic = stage.manager.sliceWidget("Red").sliceLogic()
    stage.composite("Red").SetLinkedControl(1)
    stage.composite("Red").SetHotLinkedControl(1)
    _scroll(logic, 7.0)
    assert plus.GetSliceOffset() != pytest.approx(7.0)  # another group
    plus.SetViewGroup(red.GetViewGroup())
    _scroll(logic, 9.0)
    assert plus.GetSliceOffset() == pytest.approx(9.0)


def test_a_segmentation_appears_in_the_three_dimensional_view(stage):
    stage.manager.resetThreeDViews()
    before = stage.image("1")
    organ = stage.organs("organ", (6, 8, 10), (18, 22, 26))
    organ.CreateClosedSurfaceRepresentation()
    assert difference(before, stage.image("1"))[1] > 0.02


def test_the_grid_of_a_transform_appears_in_the_three_dimensional_view(stage):
    stage.manager.resetThreeDViews()
    before = stage.image("1")
    display = stage.nodes.transform.GetDisplayNode()
    display.SetVisualizationMode(display.VIS_MODE_GRID)
    display.SetAndObserveRegionNode(stage.nodes.fixed)
    display.SetGridSpacingMm(20)
    display.SetVisibility3D(True)
    display.SetVisibility(True)
    assert difference(before, stage.image("1"))[1] > 0.02


def test_the_same_scene_gives_the_same_picture(stage):
    assert (stage.manager.layoutImage() == stage.manager.layoutImage()).all()


def test_a_picture_comes_back_from_its_file(stage, tmp_path):
    image = stage.manager.layoutImage()
    writePng(tmp_path / "views.png", image)
    assert (readPng(tmp_path / "views.png") == image).all()
    stage.manager.renderLayout(tmp_path / "again.png")
    assert (tmp_path / "views.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_views_can_be_closed_and_opened_again(scene):
    if views.missing():
        pytest.skip(views.missing())
    for _round in range(3):
        manager = views.LayoutManager(scene, (200, 160))
        slicer.app.setLayoutManager(manager)
        assert manager.layoutImage().shape == (160, 200, 3)
        manager.close()
        assert slicer.app.layoutManager() is None


def _scroll(logic, offset):
    logic.StartSliceOffsetInteraction()
    logic.SetSliceOffset(offset)
    logic.EndSliceOffsetInteraction()
