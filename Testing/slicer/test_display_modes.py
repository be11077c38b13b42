"""Each way of comparing shows the right scan in the right place, on an awkward grid."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from desktop.display_stage import FIXED, MOVING, SHAPE, SPACING, WARPED, Stage, grey, ras
from desktop.displayed_result import vtkMatrix
from desktop.pictures import colourAt
from PDDRegistrationLib import layouts


@pytest.fixture
def stage(scene):
    stage = Stage(scene)
    yield stage
    stage.close()


def _shown(stage, name, points):
    """Grey levels of one view at array indices (k, j, i)."""
    image, view = stage.image(name), stage.slice(name)
    return np.array([colourAt(image, view, ras(stage.matrix, point))[0] for point in points])


def _plane(k, step=2):
    """Voxels of one slice, away from its rim."""
    return [(k, j, i) for j in range(2, SHAPE[1] - 2, step) for i in range(2, SHAPE[2] - 2, step)]


def test_blend_mixes_by_opacity(stage):
    stage.alongGrid()
    stage.display.setMode("blend")
    for opacity in (0.0, 0.25, 1.0):
        stage.display.setBlendOpacity(opacity)
        expected = (1 - opacity) * grey(FIXED) + opacity * grey(WARPED)
        assert np.abs(_shown(stage, "Red", _plane(12)) - expected).max() <= 2


def test_blend_beneath_a_colour_map_is_the_same_blend(stage):
    stage.alongGrid()
    stage.display.setUncertainty(True)  # of zero everywhere: black, which dims alike
    stage.display.setMode("blend")
    for opacity in (0.25, 0.75):
        stage.display.setBlendOpacity(opacity)
        expected = 0.45 * ((1 - opacity) * grey(FIXED) + opacity * grey(WARPED))
        left = [point for point in _plane(12) if point[2] > 12]  # the legend lies over the others
        assert np.median(np.abs(_shown(stage, "Red", left) - expected)) <= 2


@pytest.mark.parametrize("size", [15.0, 24.0])
def test_checkerboard_alternates_in_tiles_of_the_given_size(stage, size):
    stage.alongGrid(k=14)
    stage.display.setMode("checkerboard")
    stage.display.setCheckerSize(size)
    points = _in_tiles(_plane(14, 1), size)
    tiles = np.array([np.floor(np.array(point) * SPACING[::-1] / size).sum() for point in points])
    expected = np.where(tiles % 2 == 1, grey(WARPED), grey(FIXED))
    shown = _shown(stage, "Red", points)
    assert np.abs(shown - expected).max() <= 2
    assert np.abs(shown - (grey(WARPED) + grey(FIXED) - expected)).min() > 50  # not the other way round


def _in_tiles(points, size):
    """Only points a voxel away from any edge between tiles, where the picture is not interpolated."""
    return [
        point
        for point in points
        if all(
            np.floor((index - 1.5) * step / size) == np.floor((index + 1.5) * step / size)
            for index, step in zip(point[1:], SPACING[1::-1], strict=True)
        )
    ]


def test_each_scan_keeps_its_own_window_in_the_checkerboard(stage):
    stage.nodes.warped.GetDisplayNode().SetWindowLevel(100, 180)  # 200 is now shown as 0.7 of white
    stage.display.setNodes(stage.nodes)
    stage.alongGrid()
    stage.display.setMode("checkerboard")
    shown = set(_shown(stage, "Red", _in_tiles(_plane(12), 25.0)))
    assert max(min(abs(value - wanted) for wanted in (grey(FIXED), 0.7 * 255)) for value in shown) <= 2
    assert len(shown) >= 2


def test_reveal_has_fixed_on_the_left_of_every_view(stage):
    stage.display.setMode("reveal")
    for position in (0.2, 0.5, 0.8):
        stage.display.setRevealPosition(position)
        for name in ("Red", "Green", "Yellow"):
            image = stage.image(name)[:, :, 0].astype(int)
            row = image[image.shape[0] // 2]
            inside = np.flatnonzero(row > 40)
            width = inside[-1] - inside[0]
            assert abs(row[inside[0] + 4] - grey(FIXED)) <= 2
            assert abs(row[inside[-1] - 4] - grey(WARPED)) <= 2
            border = np.flatnonzero(row[inside] > (grey(FIXED) + grey(WARPED)) / 2)[0]
            assert abs(border / width - position) < 0.12  # the grid is turned against the screen


def test_a_bright_line_parts_fixed_from_warped(stage):
    stage.display.setMode("reveal")
    for position in (0.3, 0.6, 0.4):
        stage.display.setRevealPosition(position)
        middle = stage.image("Green")[95, :, 0].astype(int)
        assert np.count_nonzero(middle > grey(WARPED) + 40) in range(1, 8)  # one voxel, aslant
    for position in (0.0, 1.0):
        stage.display.setRevealPosition(position)
        shown = stage.image("Green")[95, :, 0].astype(int)
        assert np.count_nonzero(shown > grey(WARPED) + 40) == 0
        assert abs(np.median(shown[shown > 20]) - grey(WARPED if position == 0 else FIXED)) <= 2


def test_reveal_follows_the_cursor(stage):
    view = stage.alongGrid()
    stage.display.setMode("reveal")
    stage.display.setRevealFollowsCursor(True)
    crosshair = stage.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    for j in (8, 22):
        for i in (9, 27):
            crosshair.SetCursorPositionRAS(ras(stage.matrix, (12, j, i)))
            here, axis = (j, i), layouts.horizontalAxis(view, stage.nodes.fixed)[0]
            ahead, behind = [12, *here], [12, *here]
            ahead[axis] += 3
            behind[axis] -= 3
            shown = sorted(_shown(stage, "Red", [ahead, behind]))
            assert np.abs(np.subtract(shown, [grey(FIXED), grey(WARPED)])).max() <= 2
    stage.display.restore()
    assert not crosshair.HasObserver(slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent)


def test_flicker_shows_one_and_then_the_other(stage):
    stage.alongGrid()
    stage.display.setMode("flicker")
    for expected in (FIXED, WARPED, FIXED, WARPED):
        assert np.abs(_shown(stage, "Red", _plane(12)) - grey(expected)).max() <= 2
        stage.display.flip()
    stage.display.setMode("blend")
    stage.display.flip()  # of no effect in other modes
    assert stage.display.mode == "blend"


def test_side_by_side_shows_the_same_place_twice_and_scrolls_both(stage):
    stage.alongGrid(k=9)
    stage.display.setMode("sideBySide")
    assert stage.manager.layout == layouts.PAIRED_LAYOUT
    for left, right in layouts.PAIRS:
        middle = stage.image(left).shape[0] // 2, stage.image(left).shape[1] // 2
        assert abs(int(stage.image(left)[middle][0]) - grey(FIXED)) <= 2
        assert abs(int(stage.image(right)[middle][0]) - grey(WARPED)) <= 2
        assert _matrix(stage.slice(left)) == pytest.approx(_matrix(stage.slice(right)))
    logic = stage.manager.sliceWidget("Red").sliceLogic()
    logic.StartSliceOffsetInteraction()
    logic.SetSliceOffset(stage.slice("Red").GetSliceOffset() + 11)
    logic.EndSliceOffsetInteraction()
    assert _matrix(stage.slice("Red")) == pytest.approx(_matrix(stage.slice("Red+")))


def _matrix(view):
    return slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS()).ravel()


def test_linked_slices_scroll_together(stage):
    stage.display.setLinked(True)
    assert all(stage.composite(name).GetHotLinkedControl() for name in ("Red", "Green", "Yellow"))
    stage.display.setLinked(False)
    assert not any(stage.composite(name).GetLinkedControl() for name in ("Red", "Green", "Yellow"))


def test_the_moving_scan_is_compared_as_it_is(stage):
    stage.display.setMode("compareMoving")
    middle = stage.image("Red").shape[0] // 2, stage.image("Red").shape[1] // 2
    assert abs(int(stage.image("Red")[middle][0]) - grey(FIXED)) <= 2
    assert abs(int(stage.image("Red+")[middle][0]) - grey(MOVING)) <= 2
    assert stage.slice("Red").GetViewGroup() != stage.slice("Red+").GetViewGroup()


def test_scans_under_a_parent_transform_are_compared_where_they_lie(stage):
    turn = np.eye(4)
    turn[:3, :3] = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
    turn[:3, 3] = [30, -20, 15]
    parent = stage.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformToParent(vtkMatrix(turn))
    values = np.ones(SHAPE, np.float32)
    values[12, 16:19, 20:23] = -1
    slicer.util.updateVolumeFromArray(stage.nodes.jacobian, values)
    for node in (stage.nodes.fixed, stage.nodes.warped, stage.nodes.jacobian):
        node.SetAndObserveTransformNodeID(parent.GetID())
    stage.matrix = turn @ stage.matrix
    stage.display.setNodes(stage.nodes)
    stage.alongGrid(k=12)
    stage.display.setMode("checkerboard")
    points = _in_tiles(_plane(12, 1), 25.0)
    tiles = np.array([np.floor(np.array(point) * SPACING[::-1] / 25.0).sum() for point in points])
    assert np.abs(_shown(stage, "Red", points) - np.where(tiles % 2, grey(WARPED), grey(FIXED))).max() <= 2
    stage.display.setFolding(True)
    red, green, _blue = colourAt(stage.image(), stage.slice("Red"), ras(stage.matrix, (12, 17, 21)))
    assert red - green > 100


def test_a_mode_with_missing_nodes_says_what_is_missing(stage):
    stage.nodes.warped = None
    stage.display.setNodes(stage.nodes)
    assert "warped" in stage.display.problem("checkerboard")
    with pytest.raises(ValueError, match="warped"):
        stage.display.setMode("checkerboard")
    with pytest.raises(ValueError, match="there is no mode 'chequer'"):
        stage.display.setMode("chequer")
    assert stage.display.mode == "off"
    stage.display.setMode("compareMoving")  # needs no warped volume


def test_a_warped_volume_on_another_grid_is_refused(stage):
    stage.nodes.warped = slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16))
    stage.display.setNodes(stage.nodes)
    assert "grid" in stage.display.problem("blend")
