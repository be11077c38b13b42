"""Rounds that go plane by plane: which planes they hold, in which order they ask and read."""

from __future__ import annotations

import weakref
from dataclasses import asdict

import numpy as np
import pytest
import torch

from backend.oracles import layers
from pddnet.label_moments import probability_writer
from pddnet.regularisation import RegularisationWeights
from pddnet.rounds import PLANES_ASKED_FOR, STAGES, run_rounds

WEIGHTS = RegularisationWeights(1.3, 0.0, 0.9, -0.6, 0.0, 1.1)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6, 11])
def test_planes_are_asked_for_and_read_once_in_order_and_few_are_held(depth: int) -> None:
    grid, labels = (depth, 3, 2), (3, 2, 4)
    data = torch.rand(*grid, *labels, dtype=torch.float64)
    asked: list[weakref.ref[torch.Tensor]] = []
    read: list[int] = []

    def plane_of(plane: int) -> torch.Tensor:
        assert plane == len(asked)
        assert sum(held() is not None for held in asked) < PLANES_ASKED_FOR
        given = data[plane].flatten(2).transpose(1, 2).clone()  # (Kh, L, Kw)
        asked.append(weakref.ref(given))
        return given

    out = torch.empty(*grid, 24, dtype=torch.float64)
    write = probability_writer(out)

    def reader(plane: int, rows: slice, logits: torch.Tensor) -> None:
        read.append(plane)
        write(plane, rows, logits)

    run_rounds(plane_of, grid, labels, WEIGHTS.scales(), [reader], data)
    assert len(asked) == depth
    assert read == sorted(read)
    assert set(read) == set(range(depth))
    np.testing.assert_allclose(
        out.view(data.shape), layers.regularise(data.numpy(), asdict(WEIGHTS)), atol=1e-12
    )


def test_a_mean_field_that_looked_one_plane_less_far_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid, labels = (6, 2, 2), (2, 3, 2)
    data = torch.rand(*grid, *labels, dtype=torch.float64)
    monkeypatch.setattr("pddnet.rounds._REACH", 1)
    out = torch.empty(*grid, 12, dtype=torch.float64)
    planes = data.flatten(3).transpose(2, 3)
    run_rounds(planes.__getitem__, grid, labels, WEIGHTS.scales(), [probability_writer(out)], data)
    expected = layers.regularise(data.numpy(), asdict(WEIGHTS))
    assert np.abs(out.view(data.shape).numpy() - expected).max() > 1e-4


def test_the_seconds_of_all_stages_are_told_in_order() -> None:
    told: list[str] = []
    data, out = torch.rand(2, 2, 8, 2), torch.empty(2, 2, 2, 8)
    run_rounds(
        data.__getitem__,
        (2, 2, 2),
        (2, 2, 2),
        WEIGHTS.scales(),
        [probability_writer(out)],
        data,
        on_stage=lambda stage, seconds: told.append(stage) if seconds >= 0 else None,
    )
    assert tuple(told) == STAGES
