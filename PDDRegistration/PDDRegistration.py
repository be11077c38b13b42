"""PDD Registration for 3D Slicer: what Slicer looks for in a module; the work is done in PDDRegistrationLib."""

import sys

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from PDDRegistrationLib.event_loop import QtEventLoop
from PDDRegistrationLib.logic import RegistrationLogic


class PDDRegistration(ScriptedLoadableModule):
    """What the module is called, and what it is."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("PDD Registration")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = []
        parent.contributors = ["PDDRegistration contributors"]
        parent.helpText = _(
            "Finds where each point of a fixed scan lies in a moving scan, however far away, and how certain that is. "
            "Carries the moving scan and its segmentations over to the fixed scan, and measures the result.<br>"
            "Choose two scans and press Register, or try the sample scans. "
            'See the <a href="https://github.com/PDDRegistration/PDDRegistration">tutorial</a>. '
            "Research software: not for diagnosis or treatment."
        )
        parent.acknowledgementText = _(
            "The method is that of M. P. Heinrich, Closing the Gap between Deep and Conventional Image Registration "
            "using Probabilistic Dense Displacement Networks, MICCAI 2019, "
            '<a href="https://doi.org/10.1007/978-3-030-32226-7_6">doi:10.1007/978-3-030-32226-7_6</a>. '
            "Please cite it when you use this module."
        )
        slicer.app.connect("startupCompleted()", self.onStartup)
        slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.EndImportEvent, self.onSceneImported)

    def onSceneImported(self, scene, _event):
        """Make what this module saved mean what it meant."""
        from PDDRegistrationLib.output_nodes import restoreTransforms
        from PDDRegistrationLib.overlays import showHidden

        restoreTransforms(scene)
        showHidden(scene)

    def onStartup(self):
        """Make the layout for pairs of scans known, and offer sample scans in the Sample Data module."""
        from PDDRegistrationLib.layouts import registerPairedLayout
        from PDDRegistrationLib.sample_data import registerSampleData

        registerPairedLayout(slicer.mrmlScene)
        registerSampleData(
            lambda: PDDRegistrationLogic().addSyntheticPair(),
            lambda name: self.resourcePath(f"Icons/{name}"),
        )


class PDDRegistrationWidget(ScriptedLoadableModuleWidget):
    """Puts the panel where Slicer wants it."""

    def __init__(self, parent=None):
        self.logic = self.panel = None
        ScriptedLoadableModuleWidget.__init__(self, parent)  # without a parent this calls setup()

    def setup(self):
        from PDDRegistrationLib.widget import makePanel

        ScriptedLoadableModuleWidget.setup(self)
        self.logic = PDDRegistrationLogic()
        self.panel = makePanel(self.resourcePath("UI/PDDRegistration.ui"), self.logic)
        self.layout.addWidget(self.panel.widget)
        self.panel.enter()  # Slicer does not say so after Reload

    def cleanup(self):
        if self.panel is not None:
            self.panel.close()

    def enter(self):
        self.panel.enter()

    def exit(self):
        self.panel.exit()

    def onReload(self):
        """Reload what the module consists of, too, not this file alone."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("PDDRegistrationLib", "pddnet")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class PDDRegistrationLogic(RegistrationLogic, ScriptedLoadableModuleLogic):
    """For scripts: `slicer.util.getModuleLogic("PDDRegistration").register(fixed, moving)`."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        RegistrationLogic.__init__(self, slicer.mrmlScene, QtEventLoop())
        self.isSingletonParameterNode = False  # a scene may hold several registrations


class PDDRegistrationTest(ScriptedLoadableModuleTest):
    """Run by Reload & Test: the core of the module on small made-up scans; takes a minute."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        from PDDRegistrationLib import self_test

        self_test.skipWithoutPackages(self)
        self.setUp()
        self.delayDisplay(_("Registering two made-up scans by script"))
        self_test.registersByScript(PDDRegistrationLogic())
        self.setUp()
        self.delayDisplay(_("Clicking through the panel"))
        self_test.registersByClicks(slicer.util.getModuleWidget("PDDRegistration").panel)
        self.delayDisplay(_("Test passed"))
