"""The quality of a registration in a table node, in lines and in a CSV file: every number once, none made up."""

from __future__ import annotations

import csv
import math
import os

import pytest
import slicer
import vtk

from PDDRegistrationLib import mrml_conversion, quality

SEGMENTS = [
    {
        "segmentation": "Organs",
        "name": "liver",
        "dice_before": 0.5,
        "dice_after": 0.912345,
        "hd95_before": 12.0,
        "hd95_after": 3.456,
        "displacement_mean_mm": 4.0,
        "displacement_max_mm": 9.0,
        "uncertainty_mean_mm": 1.5,
        "folding_percent": 0.0,
        "volume_ml": 1500.04,
    },
    {
        "segmentation": "Organs",
        "name": "Milz, groß",
        "dice_before": None,
        "dice_after": None,
        "hd95_before": None,
        "hd95_after": None,
        "displacement_mean_mm": 5.0,
        "displacement_max_mm": 8.0,
        "uncertainty_mean_mm": 1.0,
        "folding_percent": 0.0,
        "volume_ml": 0.0,
    },
]
REPORT = {
    "seconds": 61.23,
    "peak_memory_mb": 2345.6,
    "preset": "abdomen-ct",
    "device": "cpu",
    "displacement_mm": {"mean": 3.0, "max": 20.5},
    "folding_percent": 0.0123,
    "jacobian": {"min": -0.2, "max": 3.0, "std": 0.1},
    "uncertainty_mm": {"mean": 1.25, "max": 4.0},
    "inverse_residual_mm": {"mean": 0.01, "max": None},
    "landmarks_mm": {"before": [3.0, 5.0], "after": [1.0, 2.0]},
    "segments": SEGMENTS,
}


def cells(node) -> dict[str, list[str]]:
    """The table by the columns' names."""
    return {
        node.GetColumnName(column): [node.GetCellText(row, column) for row in range(node.GetNumberOfRows())]
        for column in range(node.GetNumberOfColumns())
    }


def number(cell: str) -> float | str:
    """A cell's number if it is one."""
    try:
        return float(cell)
    except ValueError:
        return cell


def test_the_table_has_a_row_for_all_and_one_for_each_segment():
    node = quality.makeQualityTable(REPORT)
    assert node.GetScene() is None
    table = cells(node)
    assert table["segment"] == ["(all)", "liver", "Milz, groß"]
    assert table["displacement_max_mm"] == ["20.5", "9", "8"]
    assert table["landmarks_after_mean_mm"] == ["1.50", "", ""]
    assert table["folding_percent"] == ["0.012", "0", "0"]
    assert table["jacobian_min"][0] == "-0.200"


def test_what_is_not_known_is_an_empty_cell_and_what_is_zero_is_zero():
    table = cells(quality.makeQualityTable(REPORT))
    assert table["dice_after"] == ["0.912", "0.912", ""]
    assert table["volume_ml"] == ["", "1500.0", "0.0"]
    assert "inverse_residual_max_mm" not in table
    assert not any("nan" in cell.lower() for column in table.values() for cell in column)
    broken = REPORT | {"uncertainty_mm": {"mean": math.nan, "max": math.inf}}
    assert cells(quality.makeQualityTable(broken))["uncertainty_mean_mm"] == ["", "1.50", "1.00"]


def test_columns_whose_numbers_are_all_known_are_numbers():
    node = quality.makeQualityTable(REPORT)
    column = node.GetTable().GetColumnByName("displacement_mean_mm")
    assert isinstance(column, vtk.vtkDoubleArray)
    assert [column.GetValue(row) for row in range(3)] == [3.0, 4.0, 5.0]
    assert isinstance(node.GetTable().GetColumnByName("dice_after"), vtk.vtkStringArray)
    assert node.GetColumnUnitLabel("displacement_mean_mm") == "mm"
    assert node.GetColumnTitle("displacement_mean_mm") == "Displacement, mean"
    assert "moving" in node.GetColumnDescription("displacement_mean_mm")
    assert node.GetUseColumnTitleAsColumnHeader()


@pytest.mark.parametrize("report", [{}, {"segments": [], "landmarks_mm": None, "inverse_residual_mm": None}])
def test_a_report_of_nothing_is_a_table_of_one_row(report):
    assert cells(quality.makeQualityTable(report)) == {"segment": ["(all)"]}
    assert quality.summaryRows(report) == []


def test_the_lines_say_what_the_whole_registration_is_worth():
    lines = quality.summaryRows(REPORT)
    assert ("Dice after", "0.912", "") in lines
    assert ("Landmark error after, largest", "2.00", "mm") in lines
    assert ("Folding", "0.012", "%") in lines
    assert ("Peak memory", "2346", "MB") in lines
    assert ("Device", "cpu", "") in lines
    assert len({label for label, _value, _unit in lines}) == len(lines)


def test_the_csv_file_says_the_same_as_the_table(tmp_path):
    path = tmp_path / "quality.csv"
    quality.writeCsv(REPORT, path)
    header, *rows = csv.reader(path.read_text("utf-8-sig").splitlines())
    node = quality.makeQualityTable(REPORT)
    titles = [node.GetColumnTitle(name) for name in cells(node)]
    units = [node.GetColumnUnitLabel(name) for name in cells(node)]
    assert header == [
        f"{title} ({unit})" if unit else title for title, unit in zip(titles, units, strict=True)
    ]
    for row, expected in zip(rows, zip(*cells(node).values(), strict=True), strict=True):
        assert [number(cell) for cell in row] == [number(cell) for cell in expected]
    assert "HD95 after (mm)" in header


def test_a_csv_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "quality.csv"
    path.write_text("old")

    def full(*_arguments):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        quality.writeCsv(REPORT, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["quality.csv"]
    monkeypatch.undo()
    quality.writeCsv(REPORT, path)
    assert "liver" in path.read_text("utf-8-sig")


def test_the_table_survives_a_bundle_and_updates_a_chosen_one(scene, tmp_path):
    target = scene.AddNewNodeByClass("vtkMRMLTableNode", "mine")
    mrml_conversion.updateNode(target, quality.makeQualityTable(REPORT | {"segments": []}))
    mrml_conversion.updateNode(target, quality.makeQualityTable(REPORT))
    expected = cells(target)
    assert expected == cells(quality.makeQualityTable(REPORT))
    assert target.GetColumnTitle("dice_after") == "Dice after"
    assert target.GetUseColumnTitleAsColumnHeader()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    back = scene.GetFirstNodeByName("mine")
    assert cells(back) == expected
    assert back.GetColumnTitle("dice_after") == "Dice after"
    assert back.GetColumnUnitLabel("hd95_after_mm") == "mm"
