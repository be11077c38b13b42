"""An evaluation says what the metrics say, before and after, and refuses what cannot be judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.awkward import affine_field, random_geometry
from pddnet import metrics
from pddnet.errors import InputError
from pddnet.evaluation import LabelScores, evaluate, read_landmarks
from pddnet.geometry import ImageGeometry
from pddnet.volume import LabelMap
from pddnet.warp import AffineTransform, Sequential, resample

GRID = ImageGeometry((12, 10, 8), (1.5, 2.0, 3.0))
SHIFT = AffineTransform.translation((3.0, 0.0, 0.0))  # two voxels


def two_boxes(at: int, names: dict[int, str] | None = None, extra: int = 0) -> LabelMap:
    data = torch.zeros(GRID.shape, dtype=torch.int32)
    data[2:5, 2:5, at : at + 3] = 1
    data[2:5, 6:8, at : at + 2] = 5
    data[7, 9, 11] = extra
    return LabelMap(data, GRID, names or {})


FIXED, MOVING = two_boxes(2, {1: "liver"}), two_boxes(4, {5: "spleen"})


def test_a_perfect_transform_takes_every_score_to_its_best() -> None:
    found = evaluate(FIXED, MOVING, transform=SHIFT)
    assert found.after == {1: LabelScores(1.0, 0.0, 0.0), 5: LabelScores(1.0, 0.0, 0.0)}
    overlap, distances = metrics.dice(FIXED, MOVING), metrics.surface_distances(FIXED, MOVING)
    assert found.before == {n: LabelScores(overlap[n], distances[n].hd95, distances[n].assd) for n in (1, 5)}
    assert found.before[1].dice == pytest.approx(1 / 3)
    assert found.names == {1: "liver", 5: "spleen"}


def test_a_transform_the_wrong_way_round_does_not_help() -> None:
    found = evaluate(FIXED, MOVING, transform=SHIFT.inverse())
    assert found.after[1].dice == 0.0


def test_a_warped_label_map_is_judged_as_it_is() -> None:
    warped = resample(MOVING, GRID, SHIFT)
    found = evaluate(FIXED, warped_labels=warped)
    assert found.after[1].dice == 1.0
    assert (found.before, found.quality, found.landmarks_after) == ({}, None, ())


def test_labels_of_one_scan_only_are_named_but_not_counted() -> None:
    found = evaluate(two_boxes(2, extra=7), two_boxes(2, extra=9), transform=AffineTransform.identity())
    assert found.not_compared == (7, 9)
    assert found.after.keys() == {1, 5}


def test_a_label_the_registration_loses_counts_as_missed() -> None:
    gone = AffineTransform.translation((500.0, 0, 0))
    found = evaluate(FIXED, MOVING, transform=gone)
    assert found.after[1] == LabelScores(0.0, float("inf"), float("inf"))


@pytest.mark.parametrize("linear", [False, True])
def test_the_transform_is_judged_on_the_fixed_grid(linear: bool) -> None:
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror = AffineTransform(matrix)
    field = affine_field(matrix, GRID)
    transform = Sequential((mirror,)) if linear else field
    found = evaluate(FIXED, FIXED, transform=transform)
    assert found.quality is not None
    assert found.quality.folding_fraction == 1.0
    assert evaluate(transform=field).quality == metrics.field_quality(field)


def test_landmarks_are_measured_before_and_after() -> None:
    fixed = torch.rand((5, 3), dtype=torch.float64) * 10
    found = evaluate(transform=SHIFT, landmarks=(fixed, fixed + torch.tensor([3.0, 0, 4.0])))
    assert found.landmarks_before == pytest.approx([5.0] * 5)
    assert found.landmarks_after == pytest.approx([4.0] * 5)


def test_the_table_and_the_report_show_the_same_numbers() -> None:
    pair = (torch.zeros((1, 3)), torch.tensor([[3.0, 4.0, 0.0]]))
    found = evaluate(FIXED, MOVING, transform=affine_field(SHIFT.matrix, GRID), landmarks=pair)
    table, report = found.table(), json.loads(json.dumps(found.as_dict()))
    assert "0.333 -> 1.000" in table
    assert "spleen" in table
    assert "5.00 -> 4.00 mm on average (1 pairs)" in table
    assert "folding 0.000 %" in table
    assert report["labels"]["1"]["before"]["dice"] == pytest.approx(1 / 3)
    assert report["labels"]["5"] == {"name": "spleen", **report["labels"]["5"]}
    assert report["mean"]["after"] == {"dice": 1.0, "hd95": 0.0, "assd": 0.0}
    assert report["mean"]["before"]["dice"] == pytest.approx(np.mean([s.dice for s in found.before.values()]))
    assert report["landmarks_mm"] == {"before": [5.0], "after": [4.0]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to measure"),
        ({"fixed_labels": FIXED}, r"labels need .*give both"),
        ({"moving_labels": MOVING}, r"labels need .*give both"),
        ({"warped_labels": MOVING}, r"labels need .*give both"),
        ({"moving_labels": MOVING, "transform": SHIFT}, r"labels need .*give both"),
        ({"fixed_labels": FIXED, "moving_labels": MOVING}, r"moving ones and a transform"),
        ({"landmarks": (torch.zeros(1, 3),) * 2}, r"landmarks .*give the transform"),
    ],
)
def test_what_cannot_be_judged_is_refused(given: dict[str, object], message: str | None) -> None:
    if (
        message is None
    ):  # labels 9 and 45 instead of 1 and 5: lost ones count as missed when only those are known
        assert evaluate(**given).after[1].dice == 0.0
        return
    with pytest.raises(InputError, match=message):
        evaluate(**given)


def test_scans_without_a_common_label_and_other_grids_are_refused() -> None:
    with pytest.raises(InputError, match=r"share no label.*\[1, 5\].*\[9, 45\]"):
        evaluate(FIXED, LabelMap(FIXED.data * 9, GRID), transform=SHIFT)
    other = random_geometry(np.random.default_rng(0))
    with pytest.raises(InputError, match=r"different grids"):
        evaluate(FIXED, warped_labels=LabelMap(torch.ones(other.shape), other))


@pytest.mark.parametrize("header", ["", "fx,fy,fz,mx,my,mz\n"])
def test_landmarks_are_read_from_rows_of_six_numbers(header: str, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(header + "1,2,3,4,5,6\n\n-1.5, 2, 3e1, 4, 5, 6\n")
    fixed, moving = read_landmarks(path)
    assert fixed.tolist() == [[1, 2, 3], [-1.5, 2, 30]]
    assert moving.tolist() == [[4, 5, 6], [4, 5, 6]]


@pytest.mark.parametrize(
    "text",
    ["", "\n", "a,b,c,d,e,f\n", "1,2,3\n", "1,2,3,4,5,6\n1,2\n", "nan,2,3,4,5,6\n", "1,2,3,4,5,x\n", "\x00"],
)
def test_a_file_that_is_no_table_of_landmarks_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(InputError, match=r"points\.csv is not a table of landmarks.*six numbers"):
        read_landmarks(tmp_path / "points.csv")
    with pytest.raises(InputError, match=r"missing\.csv cannot be read"):
        read_landmarks(tmp_path / "missing.csv")
