"""The section Quality: what a registration is worth, in words, in numbers, and as a table to take away."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .controls import Control, connected, nodeControl
from .doubts import doubts
from .quality import summaryRows, writeCsv

_WARNING_STYLE = (
    "QLabel { background: #fff3cd; color: #5c4400; border: 1px solid #e0c060; "
    "border-radius: 3px; padding: 4px; }"
)


class QualityPanel:
    """Shows how good a result is, and chooses what the next one is compared with.

    Args:
        ui: the panel's widgets by name.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._report: Mapping[str, Any] = {}
        self._name = ""
        self.controls: dict[str, Control] = {
            "fixedSegmentation": nodeControl(ui.fixedSegmentationSelector),
            "fixedLandmarks": nodeControl(ui.fixedLandmarksSelector),
            "movingLandmarks": nodeControl(ui.movingLandmarksSelector),
        }
        ui.warningsLabel.styleSheet = _WARNING_STYLE
        ui.qualityTableView.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        ui.qualityTableView.alternatingRowColors = True
        connected(ui.exportButton, "clicked(bool)", self._onExport)
        self.show(None, {})

    def show(self, table: Any, report: Mapping[str, Any]) -> None:
        """Show a result.

        Args:
            table: the quality table's node, None where there is none.
            report: the worker's report, empty for no result.
        """
        ui, self._report = self._ui, report
        warnings, rows = (doubts(report), summaryRows(report)) if report else ([], [])
        self._name = table.GetName() if table is not None else _("quality")
        ui.warningsLabel.text = "\n".join(f"\u26a0 {warning}" for warning in warnings)
        ui.warningsLabel.visible = bool(warnings)
        ui.summaryLabel.text = _twoColumns(rows) if rows else _("Nothing registered yet.")
        ui.qualityTableView.setMRMLTableNode(table)
        ui.qualityTableView.visible = table is not None
        ui.exportButton.enabled = bool(report)
        if table is not None:
            ui.qualityTableView.resizeColumnsToContents()

    def _onExport(self, *_arguments: Any) -> None:
        path = qt.QFileDialog.getSaveFileName(
            self._ui.exportButton, _("Export the quality table"), _fileName(self._name), _("Table (*.csv)")
        )
        if not path:
            return
        if not Path(path).suffix:
            path += ".csv"
        try:
            writeCsv(self._report, path)
        except OSError as error:
            slicer.util.errorDisplay(
                _("The table could not be written to {path}; choose another place.").format(path=path),
                detailedText=str(error),
            )


def _fileName(name: str) -> str:
    """For a node's name, which may hold what no file name may, as in "301: CT Thorax"."""
    return re.sub(r'[\\/:*?"<>|]+', "_", name) + ".csv"


def _twoColumns(rows: Sequence[tuple[str, str, str]]) -> str:
    """Names and values with their units, as rich text."""
    lines = (
        f"<tr><td>{html.escape(name)}&nbsp;&nbsp;</td><td>{html.escape(f'{value} {unit}'.strip())}</td></tr>"
        for name, value, unit in rows
    )
    return f"<table>{''.join(lines)}</table>"
