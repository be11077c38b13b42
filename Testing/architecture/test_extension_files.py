"""The files that Slicer's extension index and build read agree with one another and with the conventions."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

HOMEPAGE = "https://github.com/PDDRegistration/PDDRegistration"


@pytest.fixture(scope="module")
def cmake_settings(root: Path) -> dict[str, str]:
    """EXTENSION_* variable -> value, from the top CMakeLists.txt."""
    return dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', (root / "CMakeLists.txt").read_text("utf-8")))


@pytest.fixture(scope="module")
def s4ext(root: Path) -> dict[str, str]:
    """Keyword -> value, from the older extension description."""
    lines = (root / "PDDRegistration.s4ext").read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def test_cmake_names_what_the_extension_index_needs(cmake_settings: dict[str, str]) -> None:
    needed = {"HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"}
    assert set(cmake_settings) == needed
    assert cmake_settings["HOMEPAGE"] == HOMEPAGE


def test_the_older_description_says_the_same_as_cmake(
    s4ext: dict[str, str], cmake_settings: dict[str, str]
) -> None:
    assert {k: s4ext[k.lower()] for k in cmake_settings} == cmake_settings
    assert s4ext["scmurl"] == f"{HOMEPAGE}.git"


def test_the_index_entry_has_the_fields_of_its_schema_and_no_others(root: Path) -> None:
    entry = json.loads((root / "PDDRegistration.json").read_text("utf-8"))
    optional = {"build_dependencies", "build_subdirectory", "scm_revision", "scm_type", "enabled", "tier"}
    assert {"$schema", "category", "scm_url"} <= set(entry) <= {"$schema", "category", "scm_url"} | optional
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["tier"] in (1, 3, 5)


def test_the_index_entry_says_the_same_as_the_older_description(root: Path, s4ext: dict[str, str]) -> None:
    entry = json.loads((root / "PDDRegistration.json").read_text("utf-8"))
    assert entry["scm_url"] == s4ext["scmurl"]
    assert entry["scm_revision"] == s4ext["scmrevision"]
    assert entry["category"] == s4ext["category"]


def test_icon_and_screenshots_are_the_files_that_the_addresses_name(
    root: Path, cmake_settings: dict[str, str]
) -> None:
    for address in [cmake_settings["ICONURL"], *cmake_settings["SCREENSHOTURLS"].split()]:
        assert (root / address.split("/main/", 1)[1]).is_file(), address


def test_the_icon_is_a_png_of_128_by_128_pixels(root: Path) -> None:
    header = (root / "Resources" / "Icons" / "PDDRegistration.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:24]) == (128, 128)


def test_the_module_has_the_extensions_icon(root: Path) -> None:
    module = root / "PDDRegistration" / "Resources" / "Icons" / "PDDRegistration.png"
    assert module.read_bytes() == (root / "Resources" / "Icons" / "PDDRegistration.png").read_bytes()
