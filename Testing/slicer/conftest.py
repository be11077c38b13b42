"""What the tests of the Slicer module share: the application's surroundings and a fresh scene for each test."""

from __future__ import annotations

import pytest

from desktop import boot

boot.start()  # before any test module imports slicer


@pytest.fixture
def scene():
    """An empty scene, also `slicer.mrmlScene`."""
    return boot.freshScene()
