"""What a registration has made: nodes, directions, overlap, views, the table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import slicer

from PDDRegistrationLib.output_nodes import PROVENANCE, TRANSFORM_ROLE

from .geometry import displaced, ijkToRas, interiorPoints, sampled, voxelsOf
from .user import User, expect

_MAY_BE_EMPTY = {"foldingButton"}  # where nothing folds there is nothing to see


def outputsAreInOrder(user: User) -> None:
    """Every output is there, named after its inputs, connected to them, displayed as they are, in one folder."""
    result, inputs = user.result, user.panel.parameters.inputs()
    images = [result.warpedVolume, result.jacobian, result.uncertainty]
    transforms = [result.transform, result.inverseTransform]
    nodes = [*transforms, *images, *result.warpedSegmentations, result.qualityTable]
    expect(None not in nodes, f"all outputs are there: {nodes}")
    expect(len(result.warpedSegmentations) == len(inputs.segmentations), "one warped segmentation per input")
    fixed, moving = inputs.fixed, inputs.moving
    for node in (*transforms, *images, result.qualityTable):
        named = fixed.GetName() in node.GetName() and moving.GetName() in node.GetName()
        expect(named, f"{node.GetName()} is named after {fixed.GetName()} and {moving.GetName()}")
    for node in images:
        same = np.allclose(ijkToRas(node), ijkToRas(fixed)) and voxelsOf(node).shape == voxelsOf(fixed).shape
        expect(same, f"{node.GetName()} lies on the fixed grid")
    for transform, ends in zip(transforms, [(fixed, moving), (moving, fixed)], strict=True):
        roles = (transform.GetFixedNodeReferenceRole(), transform.GetMovingNodeReferenceRole())
        found = tuple(transform.GetNodeReference(role) for role in roles)
        expect(found == ends, f"{transform.GetName()} knows its fixed and its moving volume")
    for node in nodes:
        connected = node is result.transform or node.GetNodeReference(TRANSFORM_ROLE) is result.transform
        expect(connected, f"{node.GetName()} knows its transform")
    provenance = json.loads(result.transform.GetAttribute(PROVENANCE))
    expect(
        {"versions", "preset", "settings", "hashes", "time"} <= set(provenance), "the provenance is complete"
    )
    _expectOneFolder(nodes)


def transformLeadsToMoving(user: User) -> None:
    """The warped scan is the moving scan where the transform leads, and not where its opposite does."""
    result, inputs = user.result, user.panel.parameters.inputs()
    points = interiorPoints(inputs.fixed, 400)
    warped = sampled(result.warpedVolume, points)
    there = displaced(result.transform, points)
    candidates = {"transform": there, "opposite": 2 * points - there, "identity": points}
    errors = {
        name: float(np.nanmedian(np.abs(sampled(inputs.moving, places) - warped)))
        for name, places in candidates.items()
    }
    for name, error in errors.items():
        user.record.measured[f"median difference of intensity, {name}"] = round(error, 2)
    for name in ("opposite", "identity"):
        expect(errors["transform"] < 0.3 * errors[name], f"the transform explains the warped scan: {errors}")
    back = displaced(result.inverseTransform, there)
    residual = float(np.median(np.linalg.norm(back - points, axis=1)))
    user.record.measured["median of transform and inverse (mm)"] = round(residual, 3)
    expect(residual < 1.0, f"the inverse leads back; it misses by {residual:.2f} mm")


def segmentationIsCarried(user: User) -> None:
    """Names and colours are kept, and each organ is where the transform leads into it."""
    result, inputs = user.result, user.panel.parameters.inputs()
    source, warped = inputs.segmentations[0], result.warpedSegmentations[0]
    before, after = ([_described(segment) for segment in _segments(node)] for node in (source, warped))
    expect(before == after, f"names and colours are kept: {before} became {after}")
    points = interiorPoints(inputs.fixed, 4000)
    there, differing = displaced(result.transform, points), 0
    for segment in source.GetSegmentation().GetSegmentIDs():
        here = sampled(result.warpedVolume, points, _mask(warped, segment, result.warpedVolume))
        wanted = sampled(inputs.moving, there, _mask(source, segment, inputs.moving))
        differing += int(np.nansum(np.abs(here - wanted) > 0.5))
    share = 100 * differing / (len(points) * len(before))
    user.record.measured["points that differ (%)"] = round(share, 3)
    expect(share < 2, f"organs are carried over by the transform; {share:.1f} % of the points differ")


def organsOverlap(user: User) -> None:
    """The quality table says that the registration was worth it."""
    table = user.result.qualityTable.GetTable()
    before, after = (
        float(table.GetValueByName(0, name).ToString()) for name in ("dice_before", "dice_after")
    )
    user.record.measured.update({"mean Dice before": before, "mean Dice after": after})
    expect(after > before + 0.05, f"a higher overlap after ({after}) than before ({before})")


def showsViews(user: User) -> Iterator[None]:
    """Each button of the section View: one click shows something, the next takes it away."""
    user.result  # noqa: B018 (says why there is nothing to see)
    ui = user.ui
    if not user.pictures.possible:
        user.record.notes.append("there are no views: only the buttons were looked at")
    ui.inputsSection.collapsed = ui.qualitySection.collapsed = True
    ui.viewSection.collapsed = False
    user.pictures.fit()
    yield from user.settle()
    plain = _look(user, "view-plain")
    buttons = [
        button
        for button in slicer.util.findChildren(ui.viewSection, "*Button")
        if button is not ui.backButton
    ]
    expect(len(buttons) > 10, f"the buttons of the section View, but there are {len(buttons)}")
    for button in buttons:
        expect(button.enabled, f"{button.name} can be pressed: {button.toolTip}")
        button.click()
        yield from user.settle()
        expect(button.checked, f"{button.name} stays down")
        expect(ui.legendLabel.text, f"a legend for {button.name}")
        yield from _changes(user, button.name, plain)
        button.click()
        yield from user.settle(0.1)
        expect(not button.checked, f"{button.name} is up again")
    yield from _movesSliders(user)
    ui.checkerboardButton.click()
    ui.gridButton.click()
    yield from user.settle(0.1)
    ui.backButton.click()
    yield from user.settle()
    expect(not any(button.checked for button in buttons), "one click brings everything back")
    expect(not ui.backButton.enabled, "there is nothing more to bring back")
    if _look(user, "view-back") != plain:
        user.record.notes.append(
            "the views are not to the pixel as before: compare view-plain.png, view-back.png"
        )
    ui.inputsSection.collapsed = ui.qualitySection.collapsed = False


def exportsQuality(user: User) -> None:
    """The table in the panel, in the scene and in the file tell the same."""
    node, ui = user.result.qualityTable, user.ui
    rows, columns = node.GetNumberOfRows(), node.GetNumberOfColumns()
    segments = user.panel.parameters.inputs().segmentations[0].GetSegmentation().GetNumberOfSegments()
    expect(rows == 1 + segments, f"a row for all and one for each of {segments} segments; there are {rows}")
    expect(ui.qualityTableView.mrmlTableNode() is node, "the table is shown")
    path = user.options.folder / "quality.csv"
    path.unlink(missing_ok=True)
    with user.dialogs.saving(path):
        ui.exportButton.click()
    with path.open(encoding="utf-8-sig", newline="") as stream:
        cells = list(csv.reader(stream))
    expect(len(cells) == rows + 1, f"a header and {rows} rows in the file; there are {len(cells)} lines")
    expect(all(len(row) == columns for row in cells), f"{columns} columns in the file")
    name = next(index for index in range(columns) if node.GetTable().GetColumnName(index) == "dice_after")
    same = all(_same(cells[row + 1][name], node.GetCellText(row, name)) for row in range(rows))
    expect(same, "the file says the same as the table")
    user.photograph("quality", panelToo=True)


def _movesSliders(user: User) -> Iterator[None]:
    """A slider answers while what it is for is shown."""
    ui = user.ui
    for button, slider in (
        (ui.blendButton, ui.blendSlider),
        (ui.checkerboardButton, ui.tileSlider),
        (ui.gridButton, ui.spacingSlider),
    ):
        button.click()
        expect(slider.enabled, f"{slider.name} can be moved")
        before = _look(user, "view-slider")
        value = slider.value
        slider.setValue(value + 0.3 * (slider.maximum - value))
        yield from user.settle()
        if user.pictures.possible:
            expect(_look(user, "view-slider") != before, f"{slider.name} changes the views")
        slider.setValue(value)
        button.click()


def _changes(user: User, button: str, plain: str) -> Iterator[None]:
    """A picture of what a button shows; flicker shows what was there before, too, but not for long."""
    name = f"view-{button.removesuffix('Button')}"
    looks = [_look(user, name)]
    while looks[-1] == plain and len(looks) < 6:
        yield from user.settle()
        looks.append(_look(user, name))
    if button not in _MAY_BE_EMPTY and user.pictures.possible:
        expect(looks[-1] != plain, f"{button} changes the views")


def _look(user: User, name: str) -> str:
    """A fingerprint of the views; "" where there are none."""
    if not user.pictures.possible:
        return ""
    file, seen = user.pictures.views(name)
    if file not in user.record.screenshots:
        user.record.screenshots.append(file)
    return seen


def _expectOneFolder(nodes: list[Any]) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in nodes}
    expect(len(parents) == 1 and hierarchy.GetSceneItemID() not in parents, "all outputs are in one folder")


def _segments(node: Any) -> list[Any]:
    segmentation = node.GetSegmentation()
    return [segmentation.GetSegment(identity) for identity in segmentation.GetSegmentIDs()]


def _described(segment: Any) -> tuple[str, tuple[float, ...]]:
    return segment.GetName(), tuple(round(part, 3) for part in segment.GetColor())


def _mask(node: Any, segment: str, reference: Any) -> np.ndarray:
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, reference)


def _same(text: str, other: str) -> bool:
    return text == other or float(text) == float(other)
