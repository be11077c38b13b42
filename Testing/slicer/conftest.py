"""What the tests of the Slicer module share: the application's surroundings and a fresh scene for each test."""

from __future__ import annotations

import pytest

from desktop import boot

boot.start(withWidgets=True)  # before any test module imports slicer


@pytest.fixture
def scene():
    """An empty scene, also `slicer.mrmlScene`."""
    return boot.freshScene()


@pytest.fixture(autouse=True)
def _no_complaints():
    """What PythonQt would only print, such as a misspelt signal, fails the test, unless the test takes it away."""
    from desktop import widgets

    widgets.complaints.clear()
    yield
    assert not widgets.complaints
