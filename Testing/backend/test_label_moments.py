"""Moments read off logits block by block, against loops over the labels."""

from __future__ import annotations

import numpy as np
import torch

from backend.oracles import layers
from pddnet.correlation import displacement_labels
from pddnet.label_moments import MomentReader, probability_writer

GRID, COUNTS = (2, 3, 4), (3, 2, 4)


def test_moments_and_probabilities_are_those_of_the_softmax() -> None:
    labels = displacement_labels(COUNTS, (0.1, 0.4, 0.2), dtype=torch.float64)
    logits = 5 * torch.randn(*GRID[:2], 24, GRID[2], dtype=torch.float64)  # (Kd, Kh, L, Kw)
    reader, written = MomentReader(GRID, labels, logits), torch.empty(*GRID, 24, dtype=torch.float64)
    write = probability_writer(written)
    for plane in range(GRID[0]):
        for rows in (slice(0, 1), slice(1, 3)):
            write(plane, rows, logits[plane, rows])
            reader.read(plane, rows, logits[plane, rows].clone())
    probabilities = torch.softmax(logits, 2).transpose(2, 3)
    torch.testing.assert_close(written, probabilities)
    mean, variance, nats = layers.moments(probabilities.reshape(*GRID, *COUNTS).numpy(), labels.numpy())
    found = reader.moments()
    np.testing.assert_allclose(found.displacement, mean, atol=1e-13)
    np.testing.assert_allclose(found.variance, variance, atol=1e-13)
    np.testing.assert_allclose(found.entropy, nats, atol=1e-12)


def test_huge_costs_of_one_label_do_not_overflow() -> None:
    labels = displacement_labels(3, 0.4)
    logits = torch.full((1, 1, 27, 2), -1e6)
    logits[0, 0, 5, 0] = logits[0, 0, 7, 1] = 1e6
    reader = MomentReader((1, 1, 2), labels, logits)
    reader.read(0, slice(0, 1), logits[0])
    found = reader.moments()
    torch.testing.assert_close(found.displacement[0, 0], labels.reshape(-1, 3)[[5, 7]])
    assert found.variance.abs().max() < 1e-6
    assert found.entropy.abs().max() < 1e-6
