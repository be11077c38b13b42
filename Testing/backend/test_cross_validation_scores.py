"""One pair's scores are those of the metrics on the labels that count; a lost label has no distance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.small_study import GRID, label_map
from pddnet import metrics
from pddnet.cross_validation.scores import LabelScore, PairScores, judged
from pddnet.errors import InputError
from pddnet.volume import LabelMap
from pddnet.warp import AffineTransform, DisplacementField, resample

ALONG_X = np.array([row[0] for row in GRID.direction])
SHIFT = AffineTransform.translation(2 * 1.5 * ALONG_X)  # two voxels along x
IDENTITY = AffineTransform.identity()


def with_extra(labels: LabelMap, code: int) -> LabelMap:
    data = labels.data.clone()
    data[-1, -1, -1] = code
    return replace(labels, data=data)


def test_the_right_transform_scores_best_and_its_inverse_worse_than_none() -> None:
    fixed, moving = label_map(0), label_map(2)
    right = judged(fixed, moving, SHIFT, (1, 2), 3.5, 120.0)
    assert right == PairScores(
        (LabelScore(1, 1.0, 0.0), LabelScore(2, 1.0, 0.0)),
        pytest.approx(0, abs=1e-5),
        pytest.approx(0, abs=1e-5),
        0.0,
        3.5,
        120.0,
    )
    none = judged(fixed, moving, IDENTITY, (1, 2), 0.0, None)
    assert [score.dice for score in none.labels] == pytest.approx([3 / 5, 6 / 8])
    assert judged(fixed, moving, SHIFT.inverse(), (1, 2), 0.0, None).dice < none.dice
    assert none.dice == pytest.approx((3 / 5 + 6 / 8) / 2)


def test_the_scores_are_those_of_the_metrics() -> None:
    fixed, moving = label_map(0), label_map(3)
    torch.manual_seed(1)
    field = DisplacementField(2.5 * torch.randn((*GRID.shape, 3)), GRID)
    found = judged(fixed, moving, field, (), 0.0, None)
    warped, quality = resample(moving, GRID, field), metrics.field_quality(field)
    assert {s.label: s.dice for s in found.labels} == metrics.dice(fixed, warped)
    assert {s.label: s.hd95 for s in found.labels} == metrics.hd95(fixed, warped)
    assert found.jacobian_std == quality.jacobian_std > 0.1
    assert found.log_jacobian_std == quality.log_jacobian_std
    assert found.folding_percent == 100 * quality.folding_fraction > 0
    assert found.hd95 == pytest.approx(np.mean(list(metrics.hd95(fixed, warped).values())))


def test_only_labels_of_both_scans_count_and_only_those_named() -> None:
    fixed, moving = with_extra(label_map(0), 7), with_extra(label_map(0), 9)
    assert [s.label for s in judged(fixed, moving, IDENTITY, (), 0.0, None).labels] == [1, 2]
    assert [s.label for s in judged(fixed, moving, IDENTITY, (2, 7, 9), 0.0, None).labels] == [2]
    with pytest.raises(
        InputError, match=r"share no label that counts \(\[1, 2, 7\] and \[1, 2, 9\], counted \[3\]\)"
    ):
        judged(fixed, moving, IDENTITY, (3,), 0.0, None)


def test_a_label_moved_out_of_the_scan_counts_as_missed_and_has_no_distance() -> None:
    far = AffineTransform.translation((500.0, 0.0, 0.0))
    found = judged(label_map(0), label_map(0), far, (1, 2), 0.0, None)
    assert found.labels == (LabelScore(1, 0.0, None), LabelScore(2, 0.0, None))
    assert (found.dice, found.hd95) == (0.0, None)
