"""The stand-ins of Qt and CTK are as strict as PythonQt in the application."""

from __future__ import annotations

import ctk
import pytest
import qt
import slicer

from desktop import widgets


class TestPythonQt:
    def test_properties_are_attributes_and_not_methods(self):
        button = qt.QPushButton("x")
        assert button.text == "x"
        with pytest.raises(TypeError):
            button.text()
        button.enabled = False
        assert not button.enabled
        assert not button.isEnabled()
        button.name = "go"
        assert (button.name, button.objectName, button.className()) == ("go", "go", "QPushButton")

    def test_names_that_the_application_lacks_can_be_neither_read_nor_written(self):
        button = qt.QPushButton("x")
        with pytest.raises(AttributeError, match="no attribute named 'txt'"):
            _ = button.txt
        with pytest.raises(AttributeError, match="creating new attributes"):
            button.txt = "y"
        with pytest.raises(AttributeError, match="overwritten"):
            button.setText = "y"
        with pytest.raises(AttributeError, match="not writable"):
            button.width = 3
        with pytest.raises(AttributeError):
            _ = qt.QPushButon
        with pytest.raises(AttributeError):
            _ = ctk.ctkCollapsableButton
        button.text = "y"
        assert button.text == "y"

    def test_a_name_that_pyside_has_and_the_application_lacks_is_refused(self):
        button = qt.QPushButton()
        assert hasattr(widgets.unwrap(button), "setScreen")  # Qt 6 brought it
        assert not hasattr(button, "setScreen")

    @pytest.mark.parametrize(
        ("name", "value"), [("text", 5), ("text", None), ("enabled", None), ("enabled", "yes")]
    )
    def test_properties_refuse_values_that_are_not_of_their_type(self, name, value):
        with pytest.raises(AttributeError, match="does not accept"):
            setattr(qt.QPushButton(), name, value)

    def test_methods_take_no_keywords_and_no_callables_but_single_shot_does(self, qtbot):
        with pytest.raises(TypeError):
            qt.QLabel().setText(text="x")
        with pytest.raises(TypeError):
            qt.QMenu().addAction("x", print)
        called = []
        qt.QTimer.singleShot(0, lambda: called.append(1))
        qtbot.waitUntil(lambda: called == [1])

    def test_a_timer_ticks_and_stops(self, qtbot):
        timer, ticks = qt.QTimer(), []
        timer.interval = 1
        assert timer.connect("timeout()", lambda: ticks.append(1))
        timer.start()
        qtbot.waitUntil(lambda: len(ticks) > 2)
        timer.stop()
        assert not timer.active
        assert not timer.isActive()

    def test_objects_are_the_same_every_time(self):
        parent = qt.QWidget()
        layout = qt.QVBoxLayout(parent)
        button = qt.QPushButton("x")
        button.name = "go"
        layout.addWidget(button)
        assert parent.layout() is layout
        assert button in parent.children()
        assert parent.findChild(qt.QPushButton, "go") is button
        assert parent.findChild("QPushButton", "go") is button
        assert parent.findChild(qt.QLabel, "go") is None
        assert parent.go is button
        assert isinstance(button, qt.QWidget)

    def test_dynamic_properties_become_attributes_once_they_are_set(self):
        label = qt.QLabel()
        with pytest.raises(AttributeError):
            label.SlicerParameterName = "x"
        label.setProperty("SlicerParameterName", "fixed")
        assert label.property("SlicerParameterName") == label.SlicerParameterName == "fixed"

    def test_enumerations_are_reached_as_in_the_application(self):
        slider = qt.QSlider(qt.Qt.Horizontal)
        assert slider.orientation == qt.Qt.Horizontal
        slider.orientation = qt.Qt.Vertical
        assert slider.orientation == qt.Qt.Vertical
        label = qt.QLabel()
        label.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        assert label.sizePolicy.horizontalPolicy() == qt.QSizePolicy.Expanding
        assert qt.QMessageBox.Yes | qt.QMessageBox.No == qt.QMessageBox.No | qt.QMessageBox.Yes

    def test_a_destroyed_object_is_false_and_raises(self):
        button = qt.QPushButton()
        assert button
        button.delete()
        assert not button
        with pytest.raises(ValueError, match="destroyed"):
            _ = button.text

    def test_dialogs_that_wait_for_a_person_are_refused_until_the_test_answers(self, monkeypatch):
        with pytest.raises(RuntimeError, match="waits for a person"):
            qt.QMessageBox.question(None, "title", "text")
        with pytest.raises(RuntimeError, match="waits for a person"):
            qt.QDialog().exec_()
        with pytest.raises(RuntimeError, match="another program"):
            qt.QDesktopServices.openUrl(qt.QUrl("https://example.org"))
        monkeypatch.setattr(qt.QMessageBox, "question", lambda *_: qt.QMessageBox.Yes)
        assert qt.QMessageBox.question(None, "title", "text") == qt.QMessageBox.Yes

    def test_settings_are_kept_away_from_the_users(self):
        settings = qt.QSettings()
        settings.setValue("PDDRegistration/python", "/usr/bin/python")
        assert qt.QSettings().value("PDDRegistration/python") == "/usr/bin/python"
        assert "slicer-settings-" in settings.fileName()


class TestSignals:
    def test_connect_returns_true_and_a_misspelt_signature_false(self):
        button, states = qt.QPushButton(), []
        button.checkable = True
        assert button.connect("clicked( bool )", states.append) is True
        button.click()
        assert states == [True]
        assert button.connect("clickd(bool)", states.append) is False
        assert button.connect("clicked(int)", states.append) is False
        assert button.connect("clicked(bool)", "no callable") is False
        assert len(widgets.complaints) == 3
        widgets.complaints.clear()

    def test_functions_are_given_as_many_arguments_as_they_take(self):
        button, calls = qt.QPushButton(), []
        button.checkable = True
        button.connect("clicked(bool)", lambda: calls.append("none"))
        button.connect("clicked(bool)", lambda checked: calls.append(checked))
        button.connect("clicked(bool)", lambda *everything: calls.append(everything))
        button.connect("clicked()", lambda *everything: calls.append(everything))
        button.click()
        assert calls == ["none", True, (True,), ()]

    def test_signals_are_attributes_that_connect_disconnect_and_emit(self):
        spin, values = qt.QDoubleSpinBox(), []
        assert spin.valueChanged.connect(values.append)
        spin.value = 2.5
        assert spin.valueChanged.disconnect(values.append)
        assert not spin.valueChanged.disconnect(values.append)
        spin.value = 3.5
        assert values == [2.5]
        with pytest.raises(AttributeError, match="overwritten"):
            spin.valueChanged = print

    def test_a_connection_ends_for_the_function_it_was_made_with(self):
        button, calls = qt.QPushButton(), []
        first, second = (lambda: calls.append(1)), (lambda: calls.append(2))
        button.connect("clicked()", first)
        button.connect("clicked()", second)
        assert button.disconnect("clicked()", first)
        button.click()
        assert calls == [2]
        button.connect("clicked()", second)
        assert button.disconnect("clicked()", second)  # one at a time
        button.click()
        assert calls == [2, 2]
        assert button.disconnect("clicked()")
        button.click()
        assert calls == [2, 2]

    def test_signals_of_qt_5_that_qt_6_lacks_are_sent(self):
        box, texts, rows = qt.QComboBox(), [], []
        box.addItems(["a", "b"])
        box.connect("currentIndexChanged(QString)", texts.append)
        box.currentIndexChanged.connect(rows.append)
        box.currentIndex = 1
        assert (texts, rows) == (["b"], [1])

    def test_an_object_is_connected_to_a_slot_of_another(self):
        box, label = qt.QCheckBox(), qt.QLabel()
        assert box.connect("toggled(bool)", label, "setEnabled(bool)")
        box.checked = True
        box.checked = False
        assert not label.enabled
        assert not box.connect("toggled(bool)", label, "setEnabld(bool)")
        assert not box.connect("toggled(bool)", label, "setText(QString)")
        assert len(widgets.complaints) == 2
        widgets.complaints.clear()

    def test_an_exception_in_a_slot_reaches_the_test(self, qtbot):
        button = qt.QPushButton()
        button.connect("clicked()", lambda: 1 / 0)
        with qtbot.captureExceptions() as exceptions:
            button.click()
        assert [kind for kind, _, _ in exceptions] == [ZeroDivisionError]


class TestWidgets:
    @pytest.mark.parametrize("make", [ctk.ctkSliderWidget, ctk.ctkDoubleSpinBox, slicer.qMRMLSliderWidget])
    def test_numbers_keep_to_their_range_and_tell_of_changes(self, make):
        widget, values = make(), []
        widget.connect("valueChanged(double)", values.append)
        widget.minimum, widget.maximum, widget.singleStep, widget.suffix = 0.5, 4, 0.5, " mm"
        widget.setValue(9)
        assert widget.value == values[-1] == 4.0
        with pytest.raises(AttributeError):
            widget.value = "3"

    def test_a_range_keeps_its_order(self):
        widget, values = ctk.ctkRangeWidget(), []
        widget.setRange(-100, 300)
        widget.connect("valuesChanged(double,double)", lambda low, high: values.append((low, high)))
        widget.setValues(-50, 20)
        widget.minimumValue = 40
        assert values[-1] == (40.0, 40.0)
        assert (widget.minimumValue, widget.maximumValue) == (40.0, 40.0)

    def test_a_path_is_typed_or_chosen(self, monkeypatch):
        edit, paths = ctk.ctkPathLineEdit(), []
        edit.filters = ctk.ctkPathLineEdit.Files
        edit.connect("currentPathChanged(QString)", paths.append)
        edit.currentPath = "/a"
        monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: "/b")
        edit.browse()
        assert paths == ["/a", "/b"]

    def test_pictures_show_letters_and_not_boxes(self, tmp_path):
        pictures = set()
        for letter in "WM.":
            label = qt.QLabel(letter)
            label.setFixedSize(40, 30)
            widgets.grab(label, tmp_path / "label.png")
            pictures.add((tmp_path / "label.png").read_bytes())
        assert len(pictures) == 3
