"""A .ui file loads in the stand-ins as it is, or is refused with what is wrong in it."""

from __future__ import annotations

import ctk
import pytest
import qt
import slicer
import slicer.util

from desktop import widgets
from desktop.widgets import loader

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


@pytest.fixture
def ui_file(tmp_path):
    """Writes a .ui file, with one text of the good one replaced."""

    def write(old: str = "", new: str = ""):
        assert old in UI
        path = tmp_path / "Panel.ui"
        path.write_text(UI.replace(old, new, 1) if old else UI)
        return str(path)

    return write


class TestUiFiles:
    def test_the_applications_own_functions_load_a_file_and_name_its_widgets(self, ui_file):
        top = slicer.util.loadUI(ui_file())
        ui = slicer.util.childWidgetVariables(top)
        assert top.className() == "qMRMLWidget"
        assert ui.fixed.nodeTypes == ("vtkMRMLScalarVolumeNode",)
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
