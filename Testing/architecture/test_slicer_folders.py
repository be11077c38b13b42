"""No folder of the tests stands in for a part of Slicer by accident.

On import, slicer-core takes every folder named slicer on sys.path for a part of itself and runs its Python files.
"""

from __future__ import annotations

from pathlib import Path


def test_the_tests_of_the_module_shadow_no_part_of_slicer(root: Path) -> None:
    folder = root / "Testing" / "slicer"
    assert not (folder / "__init__.py").exists()  # it would be the package slicer itself
    parts = [file for file in folder.iterdir() if file.suffix == ".py" or file.is_dir()]
    names = {file.stem for file in parts} - {"conftest", "__pycache__"}
    assert [name for name in sorted(names) if not name.startswith("test_")] == []


def test_the_stand_ins_add_to_slicer_and_do_not_replace_it(root: Path) -> None:
    assert not (root / "Testing" / "desktop" / "site" / "slicer" / "__init__.py").exists()


def test_only_these_folders_are_called_slicer(tracked_files: list[str]) -> None:
    parents = [parent.as_posix() for file in tracked_files for parent in Path(file).parents]
    folders = {parent for parent in parents if Path(parent).name == "slicer"}
    assert folders == {"Testing/slicer", "Testing/desktop/site/slicer"}


def test_the_modules_folder_is_no_package(root: Path) -> None:
    assert not (root / "PDDRegistration" / "__init__.py").exists()  # it would hide PDDRegistration.py
