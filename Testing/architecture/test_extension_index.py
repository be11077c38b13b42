"""What the Extensions Index asks of an extension before it is listed, as far as a checkout can show it.

The rules are those of the index's own check of a submission and of its list for tiers 1 and 3.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

MEGABYTE = 1024 * 1024
STATEMENTS = [  # of the template's top CMakeLists.txt, in its order
    r"cmake_minimum_required\(VERSION 3\.16\.3\.\.\.\S+ FATAL_ERROR\)",
    r"project\(PDDRegistration\)",
    r'set\(EXTENSION_HOMEPAGE "[^"]+"\)',
    r'set\(EXTENSION_CONTRIBUTORS "[^"]+"\)',
    r'set\(EXTENSION_DESCRIPTION "[^"]+"\)',
    r'set\(EXTENSION_ICONURL "[^"]+"\)',
    r'set\(EXTENSION_SCREENSHOTURLS "[^"]+"\)',
    r'set\(EXTENSION_DEPENDS "NA"\)',
    r"find_package\(Slicer REQUIRED\)",
    r"include\(\$\{Slicer_USE_FILE\}\)",
    r"add_subdirectory\(PDDRegistration\)",
    r"include\(\$\{Slicer_EXTENSION_GENERATE_CONFIG\}\)",
    r"include\(\$\{Slicer_EXTENSION_CPACK\}\)",
]


@pytest.fixture(scope="module")
def cmake(root: Path) -> str:
    return (root / "CMakeLists.txt").read_text("utf-8")


@pytest.fixture(scope="module")
def entry(root: Path) -> dict[str, object]:
    """The extension's entry in the index."""
    return json.loads((root / "PDDRegistration.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text("utf-8")


def addresses(cmake: str) -> list[str]:
    """The addresses of the icon and of each screenshot, found as the index finds them."""
    icon = re.findall(r'set\s*\(EXTENSION_ICONURL\s*"([^"]+)"[ ]*\)', cmake)
    screenshots = re.findall(r'set\s*\(EXTENSION_SCREENSHOTURLS\s*"([^"]+)"\)', cmake)
    assert len(icon) == len(screenshots) == 1
    return [*icon, *screenshots[0].split()]


def test_the_name_is_the_same_everywhere_and_leaves_slicer_out(root: Path, cmake: str) -> None:
    (name,) = (file.stem for file in root.glob("*.json"))
    assert re.findall(r"project\s*\(\s*([^\s)]+)", cmake) == [name]
    assert (root / f"{name}.s4ext").is_file()
    assert not name.lower().startswith("slicer")


def test_the_top_list_has_the_statements_of_slicers_template_in_its_order(cmake: str) -> None:
    places = [re.search(statement, cmake) for statement in STATEMENTS]
    assert [statement for statement, place in zip(STATEMENTS, places, strict=True) if place is None] == []
    starts = [place.start() for place in places if place]
    assert starts == sorted(starts)


def test_the_description_is_one_or_two_sentences_without_a_line_break(cmake: str) -> None:
    (description,) = re.findall(r'set\(EXTENSION_DESCRIPTION "([^"]+)"\)', cmake)
    assert 1 <= len(re.findall(r"\.(?: |$)", description)) <= 2
    assert description.endswith(".")
    assert not set("\n;\\") & set(description)  # a semicolon would split the text in CMake


def test_the_category_is_one_of_the_indexs(entry: dict[str, object]) -> None:
    assert entry["category"] == "Registration"


def test_the_source_is_a_git_address_and_a_branch_that_moves(entry: dict[str, object]) -> None:
    address = urlsplit(str(entry["scm_url"]))
    assert address.scheme in {"git", "https"}
    assert address.path.endswith("/PDDRegistration.git")
    assert entry["scm_revision"] == "main"


def test_nothing_else_has_to_be_built_first(entry: dict[str, object]) -> None:
    assert entry["build_dependencies"] == []  # and EXTENSION_DEPENDS is "NA"


def test_icon_and_screenshots_are_addressed_as_raw_images_of_this_checkout(root: Path, cmake: str) -> None:
    for address in addresses(cmake):
        parts = urlsplit(address)
        assert (parts.scheme, parts.netloc) == ("https", "raw.githubusercontent.com")
        owner, project, branch, path = parts.path.strip("/").split("/", 3)
        assert (owner, project, branch) == ("PDDRegistration", "PDDRegistration", "main")
        assert (root / path).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", address


def test_the_license_lies_in_the_root_and_the_readme_names_it(root: Path, readme: str) -> None:
    assert "Apache License" in (root / "LICENSE").read_text("utf-8")
    assert re.search(r"\[Apache License 2\.0\]\(LICENSE\)", readme)


def test_the_readme_opens_with_the_name_and_a_short_summary(readme: str) -> None:
    title, summary = readme.split("\n\n")[:2]
    assert title == "# PDDRegistration"
    assert 1 <= len(re.findall(r"\.(?:\s|$)", summary)) <= 3


def test_the_readme_shows_an_image_of_this_checkout(root: Path, readme: str) -> None:
    images = re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", readme)
    assert images
    assert [image for image in images if not image.startswith("http") and not (root / image).is_file()] == []


def test_the_readme_says_what_each_module_does(root: Path, readme: str) -> None:
    modules = [file.stem for file in (root / "PDDRegistration").glob("*.py")]
    modules_said = section(readme, r"[Mm]odules?")
    assert modules == ["PDDRegistration"]
    assert re.search(r"\*\*PDDRegistration\*\*[^.]*\w+[^.]*\.", modules_said)


def test_the_readme_cites_the_publication_by_its_doi(readme: str) -> None:
    assert re.search(r"https://doi\.org/10\.\d{4,}/\S+", section(readme, r"Cite|Citation|Publications?"))


def test_the_readme_has_a_tutorial_with_steps_screenshots_and_sample_data(readme: str) -> None:
    tutorial = section(readme, r"[Tt]utorial")
    assert len(re.findall(r"^\d+\. ", tutorial, re.MULTILINE)) >= 4
    assert re.search(r"!\[[^\]]+\]\(Resources/Screenshots/[^)]+\.png\)", tutorial)
    assert re.search(r"Sample Data|sample", tutorial)


def section(markdown: str, title: str) -> str:
    """The text of the section whose heading matches `title`, with the sections inside it; empty if there is none."""
    found = re.search(rf"^(##+) [^\n]*(?:{title})[^\n]*\n", markdown, re.MULTILINE)
    if not found:
        return ""
    rest = markdown[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def test_a_section_ends_at_the_next_heading_of_its_rank() -> None:
    text = "# A\n## Tutorial\nx\n### Step\ny\n## Cite\nz\n"
    assert section(text, "Tutorial") == "x\n### Step\ny\n"
    assert section(text, "No such") == ""


def test_the_checkout_is_small(root: Path, tracked_files: list[str]) -> None:
    sizes = {file: (root / file).stat().st_size / MEGABYTE for file in tracked_files}
    assert {file: size for file, size in sizes.items() if size > 10} == {}
    assert sum(sizes.values()) < 100


def test_every_text_has_unix_line_ends(root: Path, tracked_files: list[str]) -> None:
    texts = [file for file in tracked_files if b"\0" not in (root / file).read_bytes()]
    assert [file for file in texts if b"\r" in (root / file).read_bytes()] == []


def test_no_two_files_differ_only_in_case(tracked_files: list[str]) -> None:
    assert len({file.lower() for file in tracked_files}) == len(
        tracked_files
    )  # Windows and macOS hold one of them


def test_no_path_is_too_long_for_windows(tracked_files: list[str]) -> None:
    assert [file for file in tracked_files if len(file) > 120 or re.search(r'[<>:"|?*\\ ]', file)] == []


def test_no_binary_program_is_in_the_checkout(tracked_files: list[str]) -> None:
    programs = {".exe", ".dll", ".so", ".dylib", ".pyd", ".pyc", ".zip", ".whl", ".jar"}
    assert [file for file in tracked_files if Path(file).suffix in programs] == []
