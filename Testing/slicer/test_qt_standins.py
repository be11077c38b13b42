"""The stand-ins of Qt, CTK and qMRML widgets are as strict as the application's own."""

from __future__ import annotations

import json

import ctk
import numpy as np
import pytest
import qt
import slicer.util
from PySide6.QtCore import Property, Signal

import slicer
from desktop import widgets
from desktop.widgets import catalogue, loader, record
from desktop.widgets.api import apiOf, recordedApi

widgets.install(slicer)

UI = """<ui version="4.0"><class>Panel</class>
<widget class="qMRMLWidget" name="Panel">
 <layout class="QVBoxLayout" name="rows">
  <item><widget class="ctkCollapsibleButton" name="inputs">
   <property name="text"><string>Inputs</string></property>
   <property name="collapsed"><bool>true</bool></property>
   <layout class="QFormLayout" name="form">
    <property name="leftMargin"><number>4</number></property>
    <item row="0" column="0"><widget class="QLabel" name="fixedLabel">
     <property name="text"><string>Fixed:</string></property>
     <property name="buddy"><cstring>fixed</cstring></property></widget></item>
    <item row="0" column="1"><widget class="qMRMLNodeComboBox" name="fixed">
     <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
     <property name="addEnabled"><bool>false</bool></property>
     <property name="removeEnabled"><bool>false</bool></property>
     <property name="SlicerParameterName" stdset="0"><string>fixedVolume</string></property></widget></item>
    <item row="1" column="1"><widget class="ctkPathLineEdit" name="weights">
     <property name="filters"><set>ctkPathLineEdit::Files|ctkPathLineEdit::Readable</set></property></widget></item>
   </layout></widget></item>
  <item><widget class="QPushButton" name="register_"><property name="text"><string>Register</string></property>
  </widget></item>
  <item><widget class="qMRMLNodeComboBox" name="unconnected">
   <property name="sizeAdjustPolicy"><enum>QComboBox::AdjustToContents</enum></property></widget></item>
 </layout>
</widget>
<connections>
 <connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
  <receiver>fixed</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>
 <connection><sender>register_</sender><signal>toggled(bool)</signal>
  <receiver>weights</receiver><slot>setEnabled(bool)</slot></connection>
</connections></ui>"""


@pytest.fixture(autouse=True)
def _no_complaints():
    """What the application would only print fails the test, unless the test takes it away."""
    widgets.complaints.clear()
    yield
    assert not widgets.complaints


@pytest.fixture
def ui_file(tmp_path):
    """Writes a .ui file, with one text of the good one replaced."""

    def write(old: str = "", new: str = ""):
        assert old in UI
        path = tmp_path / "Panel.ui"
        path.write_text(UI.replace(old, new, 1) if old else UI)
        return str(path)

    return write


def selector(scene, *types, **properties):
    """A node selector on a scene, without actions unless they are asked for."""
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = types
    for name, value in ({"addEnabled": False, "removeEnabled": False} | properties).items():
        setattr(box, name, value)
    box.setMRMLScene(scene)
    return box


def strangers(cls, api) -> set[str]:
    """Properties and signals of a stand-in, without those of Qt, that the recording lacks."""
    own = [base for base in cls.__mro__ if not base.__module__.startswith("PySide6")]
    members = [item for base in own for item in vars(base).items()]
    properties = {name for name, member in members if isinstance(member, Property)}
    signals = {name for name, member in members if isinstance(member, Signal)}
    return (properties - set(api.properties)) | {name for name in signals if not api.signatures(name)}


VOLUME, LABELS = "vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode"


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
        real = widgets.unwrap(qt.QComboBox())
        assert real.currentText() == ""
        with pytest.raises(AttributeError):
            _ = qt.QComboBox().setPlaceHolder
        assert hasattr(real, "isSignalConnected")
        assert hasattr(widgets.unwrap(qt.QPushButton()), "screen")
        with pytest.raises(AttributeError):
            _ = qt.QPushButton().setScreen

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
        assert button.disconnect("clicked()")
        button.click()
        assert calls == [2]

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


class TestRecording:
    def test_the_reduced_recording_says_what_the_whole_one_says(self, root):
        whole = root.parent / "shared" / "slicer" / "widget-api.json"
        if not whole.is_file():
            pytest.skip(f"the recording of the running application is not at {whole}")
        full = json.loads(whole.read_text())
        assert json.loads(record.REDUCED.read_text()) == record.reduced(full)
        for key, api in full.items():
            kept = recordedApi(key.split(".")[1])
            if key.split(".")[1] in record.LEFT_OUT:
                assert kept is None
            else:
                assert kept.attributes == set(api["attributes"])
                assert kept.properties == api["properties"]
                assert set(kept.signals) == set(api["signals"])

    @pytest.mark.parametrize("name", sorted(catalogue.STAND_INS))
    def test_a_stand_in_has_no_property_and_signal_that_the_application_lacks(self, name):
        assert apiOf(catalogue.STAND_INS[name]).recorded
        assert strangers(catalogue.STAND_INS[name], recordedApi(name)) == set()

    def test_a_property_that_the_application_lacks_would_be_found(self):
        richer = type(
            "qMRMLWidget", (catalogue.MRML["qMRMLWidget"],), {"more": Property(int), "gone": Signal()}
        )
        assert strangers(richer, recordedApi("qMRMLWidget")) == {"more", "gone"}


class TestNodeComboBox:
    def test_it_follows_nodes_that_come_go_and_change_their_name(self, scene):
        box, events = selector(scene, VOLUME), []
        box.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: events.append(node and node.GetName()))
        box.connect("currentNodeChanged(bool)", events.append)
        ct = scene.AddNewNodeByClass(VOLUME, "CT")
        assert box.currentNode() is ct  # as Qt does in a box that was empty and has no actions
        assert box.currentNodeID == ct.GetID()
        mr = scene.AddNewNodeByClass(VOLUME, "MR")
        scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "no volume")
        assert box.nodeCount() == 2
        ct.SetName("CT 2")
        scene.RemoveNode(ct)
        assert box.currentNode() is mr
        scene.RemoveNode(mr)
        assert box.currentNode() is None
        assert events == ["CT", True, "CT 2", True, "MR", True, None, False]

    def test_a_box_with_actions_chooses_nothing_by_itself(self, scene):
        box = selector(scene, VOLUME, addEnabled=True)
        scene.AddNewNodeByClass(VOLUME, "CT")
        assert box.currentNode() is None
        assert box.nodeCount() == 1

    def test_none_can_be_chosen_where_it_is_enabled(self, scene):
        box = selector(scene, VOLUME, noneEnabled=True)
        node = scene.AddNewNodeByClass(VOLUME, "CT")
        assert box.currentNode() is None
        box.setCurrentNode(node)
        assert box.currentNode() is node
        box.setCurrentNode(None)
        assert (box.currentNode(), box.currentNodeID) == (None, "")

    def test_types_children_of_types_hidden_nodes_and_attributes_decide_what_fits(self, scene):
        volume = scene.AddNewNodeByClass(VOLUME, "CT")
        scene.AddNewNodeByClass(LABELS, "labels")
        assert selector(scene, VOLUME).nodeCount() == 2
        assert selector(scene, VOLUME, showChildNodeTypes=False).nodeCount() == 1
        assert selector(scene, VOLUME, hideChildNodeTypes=[LABELS]).nodeCount() == 1
        assert selector(scene, LABELS).nodeCount() == 1
        box = selector(scene, VOLUME, showChildNodeTypes=False)
        box.addAttribute(VOLUME, "kind", "fixed")
        assert box.nodeCount() == 0
        volume.SetAttribute("kind", "fixed")
        assert box.nodeCount() == 1
        volume.SetHideFromEditors(True)
        assert box.nodeCount() == 0
        box.showHidden = True
        assert box.nodeCount() == 1

    def test_it_is_disabled_until_it_has_a_scene_and_remembers_what_was_asked_for(self, scene):
        scene.AddNewNodeByClass(VOLUME, "CT")
        second = scene.AddNewNodeByClass(VOLUME, "MR")
        box = slicer.qMRMLNodeComboBox()
        box.nodeTypes = (VOLUME,)
        box.setCurrentNode(second)
        assert not box.enabled
        assert box.currentNode() is None
        box.setMRMLScene(scene)
        assert box.enabled
        assert box.currentNode() is second
        assert box.mrmlScene() is scene
        assert box.nodeTypes == (VOLUME,)

    def test_a_node_that_the_user_makes_is_named_chosen_and_told_of(self, scene):
        box, made = selector(scene, VOLUME, addEnabled=True, baseName="Warped"), []
        box.connect("nodeAddedByUser(vtkMRMLNode*)", made.append)
        box.connect("nodeAddedByUserAction(vtkMRMLNode*)", lambda: made.append("by the menu"))
        node = box.addNode()
        assert node.GetName() == "Warped"
        assert box.currentNode() is node
        assert made == [node]
        assert box.addNode("vtkMRMLModelNode") is None
        inner = widgets.unwrap(box)._box
        inner.activated.emit(inner.findText("Create new Volume"))
        assert made[-1] == "by the menu"
        assert box.currentNode().GetName() == "Warped_1"

    def test_properties_are_strict(self, scene):
        box = selector(scene, VOLUME)
        with pytest.raises(AttributeError):
            box.noneEnable = True
        with pytest.raises(AttributeError):
            box.nodeTypes = VOLUME  # a text, which would be taken apart
        with pytest.raises(TypeError):
            box.nodeTypes()
        assert not hasattr(box, "nodes")  # C++ has it, Python has not

    def test_check_marks_belong_to_nodes(self, scene):
        box, changes = slicer.qMRMLCheckableNodeComboBox(), []
        box.nodeTypes = ["vtkMRMLSegmentationNode"]
        box.setMRMLScene(scene)
        box.connect(
            "checkedNodesChanged()", lambda: changes.append([n.GetName() for n in box.checkedNodes()])
        )
        a, b, c = (scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name) for name in "abc")
        assert box.noneChecked()
        box.setCheckState(c, qt.Qt.Checked)
        box.check(b)
        assert box.checkState(b) == qt.Qt.Checked
        scene.RemoveNode(a)
        assert box.checkedNodes() == (b, c)
        box.uncheck(b)
        assert box.checkState(b) == qt.Qt.Unchecked
        assert changes == [["c"], ["b", "c"], ["c"]]


class TestUiFiles:
    def test_the_applications_own_functions_load_a_file_and_name_its_widgets(self, ui_file):
        top = slicer.util.loadUI(ui_file())
        ui = slicer.util.childWidgetVariables(top)
        assert top.className() == "qMRMLWidget"
        assert ui.fixed.nodeTypes == (VOLUME,)
        assert ui.fixed.SlicerParameterName == "fixedVolume"
        assert ui.weights.filters == ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Readable
        assert ui.unconnected.sizeAdjustPolicy == qt.QComboBox.AdjustToContents
        assert ui.inputs.collapsed
        assert top.findChild(qt.QWidget, "fixed") is ui.fixed

    def test_the_scene_travels_along_the_files_connections_and_no_others(self, scene, ui_file):
        top = widgets.loadUI(ui_file())
        ui = slicer.util.childWidgetVariables(top)
        top.setMRMLScene(scene)
        assert ui.fixed.mrmlScene() is scene
        assert ui.unconnected.mrmlScene() is None

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ('name="addEnabled"', 'name="addEnable"', "no property 'addEnable'"),
            (
                'name="collapsed"><bool>true</bool>',
                'name="collapsed"><string>yes</string>',
                "holds a <string>",
            ),
            ('class="ctkPathLineEdit"', 'class="ctkPathEdit"', "class ctkPathEdit is not known"),
            ("mrmlSceneChanged(vtkMRMLScene*)", "mrmlSceneChange(vtkMRMLScene*)", "No such signal"),
            ("<slot>setMRMLScene(vtkMRMLScene*)", "<slot>setScene(vtkMRMLScene*)", "cannot be connected"),
            ("<receiver>fixed<", "<receiver>moving<", "not there"),
            ('name="unconnected"', 'name="fixed"', "given 2 times"),
            ("QComboBox::AdjustToContents", "QComboBox::AdjustToEverything", "AdjustToEverything"),
            ('name="leftMargin"', 'name="leftMargn"', "leftMargn"),
        ],
    )
    def test_what_the_application_would_skip_is_an_error(self, ui_file, old, new, says):
        with pytest.raises((loader.UiError, AttributeError), match=says):
            widgets.loadUI(ui_file(old, new))


class TestOtherWidgets:
    def test_a_closed_section_hides_what_is_in_it(self, ui_file):
        top = widgets.loadUI(ui_file())
        ui = slicer.util.childWidgetVariables(top)
        states = []
        ui.inputs.connect("contentsCollapsed(bool)", states.append)
        top.show()
        assert not ui.fixed.visible
        closed = ui.inputs.sizeHint.height()
        ui.inputs.collapsed = False
        assert ui.fixed.visible
        assert ui.inputs.sizeHint.height() > closed
        ui.inputs.collapsed = True
        assert not ui.fixed.visible
        assert states == [False, True]
        top.hide()

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

    def test_a_table_node_is_shown_and_followed(self, scene):
        node = scene.AddNewNodeByClass("vtkMRMLTableNode", "quality")
        slicer.util.updateTableFromArray(
            node, np.array([[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]]), ["before", "after"]
        )
        view = slicer.qMRMLTableView()
        view.setMRMLScene(scene)
        view.setMRMLTableNode(node)
        model = view.tableModel()
        assert (model.rowCount(), model.columnCount()) == (3, 2)
        assert model.headerData(1, qt.Qt.Horizontal) == "after"
        assert float(model.data(model.index(2, 1))) == 6.5
        node.SetCellText(2, 1, "7.5")
        node.Modified()
        assert float(model.data(model.index(2, 1))) == 7.5

    def test_segments_are_chosen_one_or_several(self, scene):
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
        ids = [node.GetSegmentation().AddEmptySegment("", name) for name in ("liver", "spleen")]
        widget = slicer.qMRMLSegmentSelectorWidget()
        widget.setMRMLScene(scene)
        assert widget.currentNode() is node
        assert widget.segmentIDs() == tuple(ids)
        widget.setCurrentSegmentID(ids[1])
        assert widget.currentSegmentID() == ids[1]
        widget.multiSelection = True
        widget.setSelectedSegmentIDs(ids)
        assert widget.selectedSegmentIDs() == tuple(ids)

    def test_pictures_show_letters_and_not_boxes(self, tmp_path):
        pictures = set()
        for letter in "WM.":
            label = qt.QLabel(letter)
            label.setFixedSize(40, 30)
            widgets.grab(label, tmp_path / "label.png")
            pictures.add((tmp_path / "label.png").read_bytes())
        assert len(pictures) == 3
