"""Folding, maps, outlines and the transform are drawn where they are, in colours that tell them apart."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from desktop import boot
from desktop.display_stage import FIXED, SHAPE, SPACING, WARPED, Stage, grey, ras
from desktop.pictures import colourAt, pixelOf
from PDDRegistrationLib import auxiliary, overlays

PLAIN = np.diag([-2.0, -2.5, 3.0, 1.0])  # IJK to RAS along the body's axes
PLAIN[:3, 3] = [35.0, 36.25, -34.5]  # the volume's middle is the origin


@pytest.fixture
def stage(scene):
    stage = Stage(scene)
    yield stage
    stage.close()


DIMMED = 0.45  # what an uncertainty laid over the scan leaves of it


def _colours(stage, points, name="Red"):
    image, view = stage.image(name), stage.slice(name)
    return np.array([colourAt(image, view, ras(stage.matrix, point)) for point in points])


def _set(volume, values):
    slicer.util.updateVolumeFromArray(volume, values.astype(np.float32))


def _plane(k):
    return [(k, j, i) for j in range(2, SHAPE[1] - 2) for i in range(2, SHAPE[2] - 2)]


def test_folding_is_red_exactly_where_the_determinant_is_not_positive(stage):
    values = np.ones(SHAPE)
    values[12, 10:14, 8:12] = -0.5
    values[12, 18, 20:25] = 0.0  # zero folds as well
    values[12, 20, 20:25] = 0.01
    _set(stage.nodes.jacobian, values)
    stage.alongGrid(k=12)
    stage.display.setFolding(True)
    red, green, _blue = _colours(stage, _plane(12)).T
    expected = np.array([values[point] <= 0 for point in _plane(12)])
    assert ((red - green > 100) == expected).all()
    stage.alongGrid(k=14)
    assert (_colours(stage, _plane(14)).std(axis=1) == 0).all()  # grey: nothing folds two slices on
    assert stage.display.legend()[0].startswith("Folding (red): 21 voxels")


def test_folding_is_seen_in_every_mode(stage):
    values = np.ones(SHAPE)
    values[10:15, 12:17, 14:20] = -1
    _set(stage.nodes.jacobian, values)
    stage.display.setFolding(True)
    for mode in ("blend", "checkerboard", "reveal", "flicker", "sideBySide", "compareMoving", "off"):
        stage.display.setMode(mode)
        stage.slice("Red").JumpSliceByOffsetting(*ras(stage.matrix, (12, 14, 16.5)))
        red, green, _blue = _colours(stage, [(12, 14, 16.5)])[0]
        assert red - green > 100, mode
    stage.display.setMode("sideBySide")
    assert np.ptp(stage.image("Red+").astype(int), axis=2).max() > 100
    stage.display.setMode("compareMoving")
    assert np.ptp(stage.image("Red+").astype(int), axis=2).max() == 0  # it is a property of the fixed scan


def test_no_folding_draws_nothing_and_says_so(stage):
    before = stage.image()
    stage.display.setFolding(True)
    assert (stage.image() == before).all()
    assert stage.display.legend() == ["Folding: none"]


def test_jacobian_is_blue_below_one_orange_above_and_clear_at_one(stage):
    values = np.ones(SHAPE)
    values[:, :, 12:18] = 0.6
    values[:, :, 18:24] = 1.6
    _set(stage.nodes.jacobian, values)
    stage.alongGrid()
    stage.display.setJacobian(True)
    columns = {i: _colours(stage, [(12, j, i) for j in range(8, 22)]) for i in (8, 15, 21)}
    assert np.abs(columns[8] - grey(FIXED)).max() <= 2
    assert (columns[15][:, 2] - columns[15][:, 0] > 60).all()
    assert (columns[21][:, 0] - columns[21][:, 2] > 60).all()


def test_uncertainty_has_no_colour_at_zero_and_is_brighter_where_it_is_greater(stage):
    values = np.zeros(SHAPE)
    values[:] = np.linspace(0, 6, SHAPE[2])
    _set(stage.nodes.uncertainty, values)
    stage.display.setNodes(stage.nodes)
    stage.alongGrid()
    stage.display.setUncertainty(True)
    colours = _colours(stage, [(12, 20, i) for i in (2, 12, 20, 28, 33)])
    assert np.ptp(colours[0]) <= 1
    assert abs(colours[0].mean() - DIMMED * grey(FIXED)) <= 2
    assert np.ptp(colours[2]) > 40
    shown = colours.sum(axis=1)
    assert (np.diff(shown[1:]) > 0).all()
    assert "6 mm" in stage.display.legend()[0]


def test_only_one_colour_map_is_shown_at_a_time(stage):
    stage.display.setJacobian(True)
    stage.display.setUncertainty(True)
    assert (stage.display.jacobian, stage.display.uncertainty) == (False, True)
    assert stage.composite("Red").GetForegroundVolumeID() == stage.nodes.uncertainty.GetID()
    stage.display.setJacobian(True)
    assert (stage.display.jacobian, stage.display.uncertainty) == (True, False)


def test_a_colour_bar_with_numbers_stands_beside_the_map(stage):
    stage.display.setUncertainty(True)  # zero everywhere: only the bar has colours
    image = stage.image().astype(int)
    coloured = np.argwhere(np.ptp(image, axis=2) > 60)
    assert len(coloured) > 30
    assert coloured[:, 1].min() > 0.85 * image.shape[1]


@pytest.fixture
def outlined(stage):
    """A box in the fixed scan and the same box two voxels along i as warped."""
    stage.nodes.fixedSegmentations = (stage.organs("fixed organ", (6, 8, 10), (18, 20, 24)),)
    stage.nodes.warpedSegmentations = (stage.organs("warped organ", (6, 8, 15), (18, 20, 29)),)
    stage.display.setNodes(stage.nodes)
    stage.alongGrid()
    return stage


def test_outlines_lie_on_the_organs_boundaries_and_leave_their_inside_free(outlined):
    before = _colours(outlined, [(12, 14, 20)])
    assert np.ptp(before) > 20  # segmentations are filled unless told otherwise
    outlined.display.setOutlines(True)
    image, view = outlined.image().astype(int), outlined.slice("Red")
    inside = _colours(outlined, [(12, j, i) for j in range(10, 18) for i in (6, 12, 19, 20, 27, 32)])
    assert np.ptp(inside, axis=1).max() == 0
    for i, broad in ((9.5, True), (23.5, True), (14.5, False), (28.5, False)):
        assert _strongest(image, view, outlined, i) > 60, i
        assert (_width(image, view, outlined, i) >= 4) == broad


def _along(image, view, stage, i):
    """The colourfulness of the pixels across a boundary at index i, about three voxels long."""
    first = pixelOf(view, ras(stage.matrix, (12, 14, i - 1.5)))
    last = pixelOf(view, ras(stage.matrix, (12, 14, i + 1.5)))
    steps = 3 * int(np.hypot(*np.subtract(first, last)))
    rows, columns = np.linspace(first, last, steps).round().astype(int).T
    return np.ptp(image[rows, columns], axis=1), steps / np.hypot(*np.subtract(first, last))


def _strongest(image, view, stage, i):
    return _along(image, view, stage, i)[0].max()


def _width(image, view, stage, i):
    colour, per_pixel = _along(image, view, stage, i)
    return np.count_nonzero(colour > 20) / per_pixel


def test_the_users_segmentation_is_the_same_after_outlines(outlined):
    before = outlined.image()
    display = outlined.nodes.fixedSegmentations[0].GetDisplayNode()
    outlined.display.setOutlines(True)
    assert not display.GetVisibility2D()
    outlined.display.setOutlines(False)
    assert display.GetVisibility2D()
    assert (outlined.image() == before).all()


def test_the_moving_scans_own_outlines_are_drawn_in_its_views(outlined):
    outlined.nodes.movingSegmentations = (outlined.organs("moving organ", (6, 8, 4), (18, 20, 8)),)
    outlined.display.setNodes(outlined.nodes)
    outlined.display.setOutlines(True)
    outlined.display.setMode("compareMoving")
    assert np.ptp(outlined.image("Red+").astype(int), axis=2).max() > 60
    source = outlined.nodes.movingSegmentations[0].GetID()
    moving = auxiliary.findAuxiliary(outlined.scene, overlays.OUTLINE + source)
    assert moving.GetDisplayNode().GetViewNodeIDs() == ("vtkMRMLSliceNodeRed+", "vtkMRMLSliceNodeGreen+")


def _drawn(stage):
    """Which pixels the transform has changed."""
    stage.display.setTransformDisplay("off")
    before = stage.image().astype(int)
    return lambda kind, mm: (
        stage.display.setTransformDisplay(kind, mm),
        np.abs(stage.image().astype(int) - before).max(axis=2) > 40,
    )[1]


def test_the_grid_moves_with_the_displacement():
    """The grid of the moving scan is drawn where it lies in the fixed scan: against the displacement."""
    pictures, shift = {}, None
    for sign in (0, 1, -1):
        displacement = np.zeros((*SHAPE, 3))
        displacement[..., 0] = sign * 4.0  # mm along i, which is towards the patient's right here
        stage = Stage(boot.freshScene(), PLAIN, displacement)
        pictures[sign] = _drawn(stage)("grid", 12)
        per_pixel = stage.slice("Red").GetFieldOfView()[0] / stage.slice("Red").GetDimensions()[0]
        shift = round(4.0 / per_pixel)
        stage.close()
    inner = (slice(40, -40), slice(40, -40))
    assert pictures[0][inner].mean() > 0.02

    def agreement(picture, columns):
        return (np.roll(pictures[0], columns, axis=1) & picture)[inner].sum() / picture[inner].sum()

    # i grows towards the screen's right (patient's left); the grid goes the other way
    assert agreement(pictures[1], -shift) > 0.9 > 0.7 > agreement(pictures[1], shift)
    assert agreement(pictures[-1], shift) > 0.9 > 0.7 > agreement(pictures[-1], -shift)


def test_contours_lie_where_the_displacement_has_their_size(scene):
    """Growth by a tenth: a moving point at r came from r / 1.1, so that 2 mm are found at r = 22 mm."""
    index = np.indices(SHAPE).astype(float)
    middle = (np.array(SHAPE) - 1) / 2
    away = [(index[2 - axis] - middle[2 - axis]) * SPACING[axis] for axis in range(3)]
    stage = Stage(scene, PLAIN, 0.1 * np.stack(away, axis=-1))
    stage.slice("Red").JumpSliceByCentering(0, 0, 0)
    drawn = _drawn(stage)("contours", 2.0)
    rows, columns = np.nonzero(drawn)
    to_ras = stage.slice("Red").GetXYToRAS()
    height = drawn.shape[0]
    radii = np.array(
        [
            np.hypot(*to_ras.MultiplyPoint([x, height - 1 - y, 0, 1])[:2])
            for y, x in zip(rows, columns, strict=True)
        ]
    )
    inside = radii[radii < 30]
    assert len(inside) > 50
    assert np.abs(inside - 22).max() < 1.5
    stage.close()


def test_arrows_appear_where_there_is_displacement_only(scene):
    displacement = np.zeros((*SHAPE, 3))
    displacement[:, :, SHAPE[2] // 2 + 3 :, 1] = 8.0
    stage = Stage(scene, PLAIN, displacement)
    drawn = _drawn(stage)("arrows", 8.0)
    half = drawn.shape[1] // 2
    assert drawn[:, half + 15 :].sum() > 100
    assert drawn[:, : half - 5].sum() == 0
    stage.close()


def test_an_overlay_without_its_node_says_what_is_missing(stage):
    stage.nodes.jacobian = stage.nodes.transform = None
    stage.display.setNodes(stage.nodes)
    for what, call in (
        ("folding", lambda: stage.display.setFolding(True)),
        ("jacobian", lambda: stage.display.setJacobian(True)),
        ("outlines", lambda: stage.display.setOutlines(True)),
        ("grid", lambda: stage.display.setTransformDisplay("grid", 10)),
    ):
        assert stage.display.problem(what)
        with pytest.raises(ValueError, match="There is no"):
            call()
    with pytest.raises(ValueError, match="no transform display 'mesh'"):
        stage.display.setTransformDisplay("mesh")
    assert not stage.display.active


def test_a_warped_scan_in_blend_is_not_hidden_by_folding(stage):
    stage.display.setFolding(True)
    stage.alongGrid()
    stage.display.setMode("blend")
    stage.display.setBlendOpacity(1.0)
    assert np.abs(_colours(stage, _plane(12)) - grey(WARPED)).max() <= 2


def test_a_label_map_is_outlined_too(stage):
    labels = np.zeros(SHAPE, np.int16)
    labels[6:18, 8:20, 10:24] = 1
    volume = slicer.util.addVolumeFromArray(labels, name="organs", nodeClassName="vtkMRMLLabelMapVolumeNode")
    volume.CopyOrientation(stage.nodes.fixed)
    stage.nodes.fixedSegmentations = (volume,)
    stage.display.setNodes(stage.nodes)
    view = stage.alongGrid()
    before = stage.image()
    stage.display.setOutlines(True)
    image = stage.image().astype(int)
    assert _strongest(image, view, stage, 9.5) > 20
    assert np.ptp(_colours(stage, [(12, 14, 17), (12, 14, 6)]), axis=1).max() == 0
    stage.display.setOutlines(False)
    assert (stage.image() == before).all()
