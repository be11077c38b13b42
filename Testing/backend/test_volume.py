"""Volumes and label maps keep their promises about types, shapes and values."""

from __future__ import annotations

import pytest
import torch

from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.volume import LabelMap, Volume

GRID = ImageGeometry((2, 3, 4))
CUBE = torch.arange(24).view(4, 3, 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.float64])
def test_a_volume_is_float32_whatever_it_is_made_of(dtype: torch.dtype) -> None:
    volume = Volume(CUBE.to(dtype), GRID)
    assert volume.data.dtype == torch.float32
    assert torch.equal(volume.data, CUBE.float())
    assert volume.mean() == 11.5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.bool, torch.float32])
def test_a_label_map_is_int32_whatever_it_is_made_of(dtype: torch.dtype) -> None:
    labels = LabelMap((CUBE % 2).to(dtype), GRID)
    assert labels.data.dtype == torch.int32
    assert labels.labels == [1]


@pytest.mark.parametrize("kind", [Volume, LabelMap])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4), "3-D tensor"),
        ((1, 4, 3, 2), "3-D tensor"),
        ((2, 3, 4), "must agree"),
        ((4, 3, 0), "must agree"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(kind: type, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(torch.zeros(shape), GRID)


def test_labels_are_listed_in_order_without_the_background() -> None:
    data = torch.zeros(GRID.shape, dtype=torch.int32)
    data[0, 0, 0], data[1, 2, 1], data[3, 0, 0] = 7, 2, -1
    assert LabelMap(data, GRID).labels == [-1, 2, 7]


def test_a_label_without_a_name_is_called_by_its_number() -> None:
    labels = LabelMap(CUBE, GRID, {3: "liver"})
    assert [labels.name(n) for n in (3, 4)] == ["liver", "label 4"]


@pytest.mark.parametrize("value", [0.5, -1.25, float("nan"), float("inf"), 1e12])
def test_a_value_that_is_no_label_is_refused(value: float) -> None:
    data = torch.zeros(GRID.shape)
    data[1, 1, 1] = value
    with pytest.raises(
        InputError, match=r"label map holds.*nearest-neighbour|label map holds.*whole numbers"
    ):
        LabelMap(data, GRID)


@pytest.mark.parametrize("value", [2**31, 2**32 + 5, -(2**40)])
def test_a_label_beyond_32_bits_is_refused_and_not_wrapped_around(value: int) -> None:
    with pytest.raises(InputError, match=r"label map holds.*up to 2\^31"):
        LabelMap(torch.full(GRID.shape, value), GRID)
    assert LabelMap(torch.full(GRID.shape, 2**31 - 1), GRID).labels == [2**31 - 1]


def test_the_fill_value_is_the_smallest_that_is_a_number() -> None:
    data = CUBE.float() - 5
    data[0, 0, 0], data[0, 0, 1], data[0, 1, 0] = float("-inf"), float("nan"), float("inf")
    assert Volume(data, GRID).fill_value == -2.0
    assert Volume(torch.full(GRID.shape, float("nan")), GRID).fill_value == 0.0
