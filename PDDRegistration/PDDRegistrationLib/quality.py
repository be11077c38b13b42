"""A registration's quality as a table node, as a few lines to read, and as a CSV file, from the worker's report.

A number that is not there (no fixed segmentation, no landmarks, not finite) is an empty cell, never 0 or "nan".
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
import vtk

from .quality_columns import Cell, Column, Report, columns


def makeQualityTable(report: Report) -> Any:
    """A table node, in no scene: a row for the whole registration, then one for each segment.

    Columns are named the same in all languages and titled in the user's. A column without any value is left out; one
    in which only some are missing is of text, so that a cell can be empty.
    """
    node = slicer.vtkMRMLTableNode()
    node.SetUseColumnTitleAsColumnHeader(True)
    for column, cells in _filled(report):
        array = _array(column, cells)
        array.SetName(column.name)
        node.AddColumn(array)
        node.SetColumnTitle(column.name, column.title)  # Slicer shows the unit after it
        node.SetColumnDescription(column.name, column.description)
        if column.unit:
            node.SetColumnUnitLabel(column.name, column.unit)
    node.SetLocked(True)
    return node


def summaryRows(report: Report) -> list[tuple[str, str, str]]:
    """What the whole registration is worth: (label, value, unit), without what is not known."""
    rows = []
    for column in columns():
        cell = column.forAll(report)
        if cell is not None and not column.name.startswith("segment"):
            rows.append((column.title, column.text(cell), column.unit))
    return rows


def writeCsv(report: Report, path: str | Path) -> None:
    """Write the table as CSV; an existing file is replaced once the new one is complete.

    Raises:
        OSError: the folder cannot be written.
    """
    path = Path(path)
    filled = _filled(report)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with temporary.open(
            "w", encoding="utf-8-sig", newline=""
        ) as stream:  # the mark tells Excel that it is UTF-8
            writer = csv.writer(stream)
            writer.writerow(column.header for column, _cells in filled)
            writer.writerows(
                zip(*([column.text(cell) for cell in cells] for column, cells in filled), strict=True)
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _filled(report: Report) -> list[tuple[Column, list[Cell]]]:
    """The columns that hold anything: a cell for the whole registration, then one for each segment."""
    segments = report.get("segments") or ()
    table = [
        (column, [column.forAll(report), *(column.forSegment(segment) for segment in segments)])
        for column in columns()
    ]
    return [(column, cells) for column, cells in table if any(cell is not None for cell in cells)]


def _array(column: Column, cells: Sequence[Cell]) -> vtk.vtkAbstractArray:
    numbers = all(isinstance(cell, float) for cell in cells)
    array = vtk.vtkDoubleArray() if numbers else vtk.vtkStringArray()
    for cell in cells:
        array.InsertNextValue(cell if numbers else column.text(cell))
    return array
