"""CTK's numbers: spin boxes, sliders and ranges."""

from __future__ import annotations

from PySide6.QtCore import Property, Qt, Signal
from PySide6.QtWidgets import QDoubleSpinBox, QHBoxLayout, QSlider, QWidget

from .stored import forwarded, stored


def inRow(widget: QWidget, *parts: QWidget) -> None:
    layout = QHBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        layout.addWidget(part)


class _Number(QWidget):
    """What CTK's single numbers share: a spin box does the arithmetic."""

    valueChanged = Signal(float)
    decimalsChanged = Signal(int)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._spin = QDoubleSpinBox(self)
        self._spin.valueChanged.connect(self.valueChanged)

    value = forwarded(float, "_spin", "value")
    minimum = forwarded(float, "_spin", "minimum")
    maximum = forwarded(float, "_spin", "maximum")
    singleStep = forwarded(float, "_spin", "singleStep")
    prefix = forwarded(str, "_spin", "prefix")
    suffix = forwarded(str, "_spin", "suffix")
    decimals = Property(int, lambda self: self._spin.decimals(), lambda self, count: self.setDecimals(count))

    def setDecimals(self, count: int) -> None:
        if count != self._spin.decimals():
            self._spin.setDecimals(count)
            self.decimalsChanged.emit(count)

    def setValue(self, value: float) -> None:
        self._spin.setValue(value)


class ctkDoubleSpinBox(_Number):  # noqa: N801 (the application's name)
    """A spin box."""

    editingFinished = Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        inRow(self, self._spin)
        self._spin.editingFinished.connect(self.editingFinished)

    readOnly = Property(
        bool, lambda self: self._spin.isReadOnly(), lambda self, on: self._spin.setReadOnly(on)
    )

    def stepUp(self) -> None:
        self._spin.stepUp()

    def stepDown(self) -> None:
        self._spin.stepDown()


class ctkSliderWidget(_Number):  # noqa: N801
    """A slider beside a spin box."""

    valueIsChanging = Signal(float)
    pageStep = stored(float, 10.0)
    tickInterval = stored(float, 0.0)
    tracking = stored(bool, True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider = QSlider(Qt.Horizontal, self)
        self._slider.setRange(0, 1000)  # thousandths of the range
        self._slider.valueChanged.connect(self._moved)
        self._spin.valueChanged.connect(self._follow)
        inRow(self, self._slider, self._spin)

    def _moved(self, thousandths: int) -> None:
        low, high = self._spin.minimum(), self._spin.maximum()
        self._spin.setValue(low + (high - low) * thousandths / 1000)

    def _follow(self, value: float) -> None:
        low, high = self._spin.minimum(), self._spin.maximum()
        self._slider.blockSignals(True)
        self._slider.setValue(round(1000 * (value - low) / (high - low)) if high > low else 0)
        self._slider.blockSignals(False)

    spinBoxVisible = Property(
        bool, lambda self: not self._spin.isHidden(), lambda self, on: self._spin.setVisible(on)
    )

    def setSpinBoxVisible(self, shown: bool) -> None:
        self._spin.setVisible(shown)

    def showEvent(self, event) -> None:
        self._follow(self._spin.value())
        super().showEvent(event)


class qMRMLSliderWidget(ctkSliderWidget):  # noqa: N801
    """The slider that may take its unit from the scene."""

    quantity = stored(str, "")
    _scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        self._scene = scene


class ctkRangeWidget(QWidget):  # noqa: N801
    """Two numbers, the first never above the second."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._low, self._high = QDoubleSpinBox(self), QDoubleSpinBox(self)
        self._high.setValue(99.0)
        self._low.valueChanged.connect(self._lowChanged)
        self._high.valueChanged.connect(self._highChanged)
        inRow(self, self._low, self._high)

    def _lowChanged(self, value: float) -> None:
        self._high.setValue(max(value, self._high.value()))
        self.minimumValueChanged.emit(value)
        self.valuesChanged.emit(value, self._high.value())

    def _highChanged(self, value: float) -> None:
        self._low.setValue(min(value, self._low.value()))
        self.maximumValueChanged.emit(value)
        self.valuesChanged.emit(self._low.value(), value)

    minimumValue = forwarded(float, "_low", "value")
    maximumValue = forwarded(float, "_high", "value")

    def setMinimumValue(self, value: float) -> None:
        self._low.setValue(value)

    def setMaximumValue(self, value: float) -> None:
        self._high.setValue(value)

    def setValues(self, low: float, high: float) -> None:
        self._high.setValue(high)
        self._low.setValue(low)

    def setRange(self, low: float, high: float) -> None:
        for spin in (self._low, self._high):
            spin.setRange(low, high)
        self.rangeChanged.emit(low, high)

    def setDecimals(self, count: int) -> None:
        for spin in (self._low, self._high):
            spin.setDecimals(count)

    def _setStep(self, step: float) -> None:
        for spin in (self._low, self._high):
            spin.setSingleStep(step)

    minimum = Property(
        float, lambda self: self._low.minimum(), lambda self, value: self.setRange(value, self._low.maximum())
    )
    maximum = Property(
        float, lambda self: self._low.maximum(), lambda self, value: self.setRange(self._low.minimum(), value)
    )
    decimals = Property(int, lambda self: self._low.decimals(), setDecimals)
    singleStep = Property(float, lambda self: self._low.singleStep(), _setStep)
