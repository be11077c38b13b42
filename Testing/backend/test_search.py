"""The layers in one go against the formulas, and what makes them fast: no sampling, no permuted copy, two volumes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.oracles import layers
from benchmarks.naive_layers import naive_layers
from pddnet.correlation import control_points, displacement_labels
from pddnet.regularisation import PUBLISHED_WEIGHTS, Regularisation
from pddnet.search import displacement_from_features, probabilities_from_features

GRID, COUNTS = (4, 3, 5), (3, 5, 2)
PAPER_SIZE = """
import json
import torch
from pddnet.correlation import control_points, displacement_labels
from pddnet.memory import peak_memory_mb
from pddnet.regularisation import PUBLISHED_WEIGHTS
from pddnet.search import displacement_from_features

fixed, moving = torch.rand(1, 16, 77, 56, 95), torch.rand(1, 16, 77, 56, 95)
before = peak_memory_mb()
displacement_from_features(
    fixed, moving, control_points(32), displacement_labels(15, {reach}), PUBLISHED_WEIGHTS
)
print(json.dumps({{"before": before, "peak": peak_memory_mb()}}))
"""


def reach_of(strides: tuple[int, int, int]) -> tuple[float, float, float]:
    """The (x, y, z) reach whose label steps fit the control spacings this many times along (z, y, x)."""
    z, y, x = (
        (count - 1) / (points - 1) / stride
        for count, points, stride in zip(COUNTS, GRID, strides, strict=True)
    )
    return x, y, z


REACHES = {
    "off the lattice": (0.31, 0.4, 0.23),
    "on the lattice": reach_of((1, 1, 1)),
    "on a finer lattice": reach_of((2, 1, 2)),
}


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 4, 6, 7, 9, dtype=torch.float64), torch.randn(1, 4, 8, 5, 7, dtype=torch.float64)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES)
def test_all_layers_in_one_go_follow_the_formulas(
    features: tuple[torch.Tensor, torch.Tensor], reach: tuple[float, float, float]
) -> None:
    fixed, moving = features
    points = control_points(GRID, dtype=torch.float64)
    labels = displacement_labels(COUNTS, reach, dtype=torch.float64)
    data = layers.dissimilarity(fixed[0].numpy(), moving[0].numpy(), points.numpy(), labels.numpy())
    probabilities = layers.regularise(data, asdict(PUBLISHED_WEIGHTS))
    mean, variance, nats = layers.moments(probabilities, labels.numpy())
    found = displacement_from_features(fixed, moving, points, labels, PUBLISHED_WEIGHTS)
    np.testing.assert_allclose(found.displacement, mean, atol=1e-10)
    np.testing.assert_allclose(found.variance, variance, atol=1e-10)
    np.testing.assert_allclose(found.entropy, nats, atol=1e-9)
    kept, moments = probabilities_from_features(fixed, moving, points, labels, PUBLISHED_WEIGHTS)
    np.testing.assert_allclose(kept, probabilities, atol=1e-10)
    for one, other in zip(vars(moments).values(), vars(found).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES)
def test_single_precision_agrees_with_the_naive_layers_in_double(
    features: tuple[torch.Tensor, torch.Tensor], reach: tuple[float, float, float]
) -> None:
    fixed, moving = features
    points = control_points(GRID, dtype=torch.float64)
    labels = displacement_labels(COUNTS, reach, dtype=torch.float64)
    expected = naive_layers(fixed, moving, points, labels, PUBLISHED_WEIGHTS)
    single = (tensor.float() for tensor in (fixed, moving, points, labels))
    found = displacement_from_features(*single, PUBLISHED_WEIGHTS).displacement
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-2


@pytest.mark.parametrize("size", [(7, 6, 5), (5, 6, 7), (6, 7, 5), (5, 5, 6), (7, 5, 6), (6, 5, 7)])
def test_whichever_axis_is_the_longest(size: tuple[int, int, int]) -> None:
    fixed, moving = torch.randn(1, 2, 4, 5, 6).double(), torch.randn(1, 2, *size).double()
    points = control_points(GRID, dtype=torch.float64)
    labels = displacement_labels(COUNTS, (0.2, 0.3, 0.4), dtype=torch.float64)
    found = displacement_from_features(fixed, moving, points, labels, PUBLISHED_WEIGHTS)
    torch.testing.assert_close(
        found.displacement, naive_layers(fixed, moving, points, labels, PUBLISHED_WEIGHTS)
    )
    _, moments = probabilities_from_features(fixed, moving, points, labels, PUBLISHED_WEIGHTS)
    for one, other in zip(vars(moments).values(), vars(found).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_points_that_form_no_lattice_are_searched_too(features: tuple[torch.Tensor, torch.Tensor]) -> None:
    points = (control_points(GRID, dtype=torch.float64) + 0.1 * torch.randn(*GRID, 3)).clamp(-1, 1)
    labels = displacement_labels(COUNTS, 0.3, dtype=torch.float64)
    found = displacement_from_features(*features, points, labels, PUBLISHED_WEIGHTS).displacement
    torch.testing.assert_close(found, naive_layers(*features, points, labels, PUBLISHED_WEIGHTS))


@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES)
def test_no_feature_is_sampled_where_points_and_labels_form_grids(
    features: tuple[torch.Tensor, torch.Tensor],
    reach: tuple[float, float, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("grid_sample was called")

    points = control_points(GRID, dtype=torch.float64)
    labels = displacement_labels(COUNTS, reach, dtype=torch.float64)
    monkeypatch.setattr(torch.nn.functional, "grid_sample", refuse)
    displacement_from_features(*features, points, labels, PUBLISHED_WEIGHTS)
    with pytest.raises(AssertionError, match="grid_sample was called"):
        displacement_from_features(*features, points + torch.rand_like(points), labels, PUBLISHED_WEIGHTS)


@pytest.mark.parametrize(("reach", "search"), [(0.4, "InterpolatedSearch"), (2 / 3, "SlicedSearch")])
def test_a_shared_lattice_is_noticed_in_single_precision(
    reach: float, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed, moving = torch.rand(1, 2, 5, 5, 5), torch.rand(1, 2, 5, 5, 5)

    class Noted(Exception):
        """This kind of search was chosen."""

    def chosen(*_: object) -> None:
        raise Noted

    monkeypatch.setattr(f"pddnet.correlation.{search}", chosen)
    with pytest.raises(Noted):
        displacement_from_features(
            fixed, moving, control_points(7), displacement_labels(5, reach), PUBLISHED_WEIGHTS
        )


def test_the_number_of_threads_and_a_second_run_change_no_bit(threads: int) -> None:
    generator = torch.Generator().manual_seed(5)
    fixed, moving = (torch.rand(1, 3, 9, 8, 7, generator=generator) for _ in range(2))
    search = (fixed, moving, control_points((7, 6, 8)), displacement_labels(5, 0.3), PUBLISHED_WEIGHTS)
    here = displacement_from_features(*search)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(3 - threads)
    again = displacement_from_features(*search)
    for one, other in zip(vars(here).values(), vars(again).values(), strict=True):
        assert torch.equal(one, other)


def test_half_precision_is_storage_only() -> None:
    fixed, moving = 3 * torch.rand(1, 4, 8, 9, 7), 3 * torch.rand(1, 4, 8, 9, 7)
    search = (fixed, moving, control_points(GRID), displacement_labels(7, 0.4), PUBLISHED_WEIGHTS)
    whole = displacement_from_features(*search)
    half = displacement_from_features(*search, storage_dtype=torch.float16)
    assert half.displacement.dtype == torch.float32
    step = 0.8 / 6
    assert (half.displacement - whole.displacement).abs().max() < 2e-2 * step
    assert not torch.equal(half.displacement, whole.displacement)


def test_trainable_weights_are_read_as_numbers(features: tuple[torch.Tensor, torch.Tensor]) -> None:
    weights = Regularisation(PUBLISHED_WEIGHTS).double().weights
    points = control_points(GRID, dtype=torch.float64)
    labels = displacement_labels(COUNTS, 0.3, dtype=torch.float64)
    trained = displacement_from_features(*features, points, labels, weights)
    assert not trained.displacement.requires_grad
    written = displacement_from_features(*features, points, labels, PUBLISHED_WEIGHTS)
    torch.testing.assert_close(trained.displacement, written.displacement, rtol=0, atol=1e-6)


def test_the_stages_are_told_in_order_and_the_hook_ends_the_search() -> None:
    features = torch.rand(1, 2, 4, 4, 4)
    search = (features, features, control_points(3), displacement_labels(3, 0.3), PUBLISHED_WEIGHTS)
    told: list[str] = []
    displacement_from_features(*search, on_stage=lambda name, _: told.append(name))
    assert told == ["dissimilarity", "round 1", "round 2", "softmax and expectation"]

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        displacement_from_features(*search, between_chunks=stop)


@pytest.mark.parametrize("reach", [0.4, 14 / 31], ids=["off the lattice", "on the lattice"])
def test_the_papers_size_takes_less_than_one_volume(reach: float, root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root / "PDDRegistration")}
    program = [sys.executable, "-c", PAPER_SIZE.format(reach=reach)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True, timeout=300)
    memory = json.loads(done.stdout)
    volume = 32**3 * 15**3 * 4 / 1e6  # 442 MB
    assert memory["peak"] - memory["before"] < 0.8 * volume
