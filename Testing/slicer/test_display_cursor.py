"""The cursor in one scan and the same place in the other: through the transform, both ways, on an awkward grid."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk

from desktop.display_stage import SHAPE, SPACING, Stage, ras
from desktop.displayed_result import transformNode, vtkMatrix
from PDDRegistrationLib import auxiliary
from PDDRegistrationLib.cursor import CursorSynchronizer

EVENT = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent


def _displacement():
    """mm along i, j, k, smooth and different everywhere; no folding."""
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, count) for count in SHAPE], indexing="ij")
    return np.stack([6 * np.cos(2 * j), 5 * np.sin(2 * k) + 3, 9 * np.cos(2 * i)], axis=-1)


@pytest.fixture
def stage(scene):
    stage = Stage(scene, displacement=_displacement())
    stage.said = []
    stage.display.onMessage = stage.said.append
    stage.display.setMode("compareMoving")
    yield stage
    stage.close()


def _moving(stage, kji):
    """The moving point of a voxel of the fixed scan, from the array itself."""
    return ras(stage.matrix, kji) + (_displacement()[kji] / SPACING) @ stage.matrix[:3, :3].T


def _point_at(stage, name, point):
    """Put the mouse onto a world point of a view, in whose plane it lies or is moved into."""
    view = stage.slice(name)
    view.JumpSliceByOffsetting(*point)
    to_xy = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(view.GetXYToRAS(), to_xy)
    crosshair = stage.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCursorPositionXYZ([*to_xy.MultiplyPoint([*point, 1.0])[:2], 0.0], view)


def _distance(stage, name, point):
    """mm between a point and the plane of a view."""
    plane = slicer.util.arrayFromVTKMatrix(stage.slice(name).GetSliceToRAS())
    return abs(plane[:3, 2] @ (np.asarray(point) - plane[:3, 3]))


def _marker(stage):
    node = auxiliary.findAuxiliary(stage.scene, "cursor")
    return np.array(node.GetNthControlPointPositionWorld(0)), node.GetDisplayNode().GetViewNodeIDs()


@pytest.mark.parametrize("kji", [(12, 15, 18), (5, 8, 28), (19, 24, 6)])
def test_the_moving_views_go_to_the_corresponding_point(stage, kji):
    fixed, moving = ras(stage.matrix, kji), _moving(stage, kji)
    _point_at(stage, "Red", fixed)
    for name in ("Red+", "Green+"):
        assert _distance(stage, name, moving) < 0.01
    position, views = _marker(stage)
    assert position == pytest.approx(moving, abs=0.01)
    assert views == ("vtkMRMLSliceNodeRed+", "vtkMRMLSliceNodeGreen+")
    assert _distance(stage, "Red+", fixed) > 1  # not simply the same point
    assert _distance(stage, "Red+", 2 * fixed - moving) > 1  # nor against the displacement


@pytest.mark.parametrize("kji", [(12, 15, 18), (6, 10, 26)])
def test_the_fixed_views_go_back_to_where_the_point_came_from(stage, kji):
    fixed, moving = ras(stage.matrix, kji), _moving(stage, kji)
    _point_at(stage, "Green+", moving)
    for name in ("Red", "Green"):
        assert _distance(stage, name, fixed) < 0.1
    position, views = _marker(stage)
    assert position == pytest.approx(fixed, abs=0.1)
    assert views == ("vtkMRMLSliceNodeRed", "vtkMRMLSliceNodeGreen")


def test_the_marker_is_seen_in_the_other_view_only(stage):
    _point_at(stage, "Red", ras(stage.matrix, (12, 15, 18)))
    yellow = {name: _yellow(stage.image(name)) for name in ("Red", "Green", "Red+", "Green+")}
    assert min(yellow["Red+"], yellow["Green+"]) > 5
    assert max(yellow["Red"], yellow["Green"]) == 0


def _yellow(image):
    red, _green, blue = image.astype(int).transpose(2, 0, 1)
    return np.count_nonzero(red - blue > 60)


def test_scrolling_takes_the_other_view_along(stage):
    crosshair = stage.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCursorPositionInvalid()
    before = stage.slice("Red+").GetSliceOffset()
    stage.slice("Red").SetSliceOffset(stage.slice("Red").GetSliceOffset() + 9)
    assert 4 < stage.slice("Red+").GetSliceOffset() - before < 16


def test_an_inverse_that_is_not_found_is_said_and_nothing_moves(scene):
    """The whole scan is pressed onto one plane: off that plane the inverse has nowhere to go."""
    index = np.indices(SHAPE).astype(float)
    pressed = np.zeros((*SHAPE, 3))
    pressed[..., 0] = (18 - index[2]) * SPACING[0]
    stage = Stage(scene, displacement=pressed)
    stage.said = []
    stage.display.onMessage = stage.said.append
    stage.display.setMode("compareMoving")
    stage.slice("Red+").JumpSliceByOffsetting(*ras(stage.matrix, (12, 15, 30)))
    before = [stage.slice(name).GetSliceOffset() for name in ("Red", "Green")]
    _point_at(stage, "Red+", ras(stage.matrix, (12, 15, 30)))
    assert [stage.slice(name).GetSliceOffset() for name in ("Red", "Green")] == before
    assert "folds" in stage.said[-1]
    _point_at(stage, "Red", ras(stage.matrix, (12, 15, 18)))
    assert stage.said[-1] == ""
    stage.close()


def test_there_and_back_is_where_it_began(stage):
    cursor = CursorSynchronizer(stage.scene, stage.nodes.transform, (), ())
    for kji in np.ndindex(4, 4, 4):
        point = ras(stage.matrix, np.array(kji) * [6, 8, 10] + 2)
        assert cursor.toFixed(cursor.toMoving(point)) == pytest.approx(point, abs=0.2)


def test_the_whole_chain_above_the_transform_counts(stage):
    shift = np.eye(4)
    shift[:3, 3] = [7, -4, 11]
    parent = stage.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformToParent(vtkMatrix(shift))
    cursor = CursorSynchronizer(stage.scene, stage.nodes.transform, (), ())
    fixed = ras(stage.matrix, (12, 15, 18))
    alone = np.array(cursor.toMoving(fixed))
    stage.nodes.transform.SetAndObserveTransformNodeID(parent.GetID())
    assert cursor.toMoving(fixed + shift[:3, 3]) == pytest.approx(alone, abs=1e-3)
    assert cursor.toFixed(alone) == pytest.approx(fixed + shift[:3, 3], abs=0.2)


def test_an_inverse_transform_is_only_a_guess(stage):
    wrong = transformNode(stage.scene, np.full((*SHAPE, 3), 4.0), stage.matrix)
    cursor = CursorSynchronizer(stage.scene, stage.nodes.transform, (), (), inverse=wrong)
    point = ras(stage.matrix, (12, 15, 18))
    assert cursor.toFixed(cursor.toMoving(point)) == pytest.approx(point, abs=0.2)


def test_afterwards_no_observer_and_no_node_is_left(stage):
    _point_at(stage, "Red", ras(stage.matrix, (12, 15, 18)))
    crosshair = stage.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    assert crosshair.HasObserver(EVENT)
    stage.display.setMode("off")
    assert not crosshair.HasObserver(EVENT)
    assert auxiliary.findAuxiliary(stage.scene, "cursor") is None
    offset = stage.slice("Red+").GetSliceOffset()
    _point_at(stage, "Red", ras(stage.matrix, (5, 15, 18)))
    assert stage.slice("Red+").GetSliceOffset() == offset


def test_the_users_choice_of_markups_to_place_points_in_stays(stage):
    theirs = stage.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "landmarks")
    selection = stage.scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    selection.SetActivePlaceNodeID(theirs.GetID())
    _point_at(stage, "Red", ras(stage.matrix, (12, 15, 18)))
    assert selection.GetActivePlaceNodeID() == theirs.GetID()
