"""What the tests of the project's files share: the files that git tracks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tracked_files(root: Path) -> list[str]:
    """Every file of the project that git tracks and that is there, relative to the root, sorted."""
    if not (root / ".git").exists():
        pytest.skip("this is not a git checkout, so there is no list of tracked files to compare with")
    command = ["git", "-C", str(root), "ls-files", "-z"]
    paths = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted(path for path in paths if path and (root / path).exists())
