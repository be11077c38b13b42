"""The stand-ins of the qMRML widgets follow a real scene, and offer nothing that was not recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import qt
import slicer
import slicer.util
from PySide6.QtCore import Property, Signal

from desktop import widgets
from desktop.widgets import catalogue, record
from desktop.widgets.api import apiOf, recordedApi

VOLUME, LABELS = "vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode"


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


class TestOtherWidgets:
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
