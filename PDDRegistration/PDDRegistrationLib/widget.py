"""The panel: controls on one side, parameters, logic and views on the other; nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from pddnet.errors import InputError
from pddnet.memory import available_memory_mb

from .advanced_panel import AdvancedPanel, OutputPanel, placeWords
from .dependencies import Installer
from .device_guess import likelyDevice
from .display import ResultDisplay
from .doubts import doubts
from .event_loop import QtEventLoop
from .input_panel import InputPanel
from .input_watch import InputWatch
from .next_worker import NextWorker
from .parameter_panel import ParameterPanel
from .quality_panel import QualityPanel
from .run_panel import RunPanel, clock
from .sample_data import brainTumorTitle, loadBrainTumor, syntheticTitle
from .settings import RegistrationInputs, RegistrationOutputs, RegistrationSettings
from .view_controls import ViewControls, displayedNodes


def makePanel(uiFile: str, logic: Any) -> RegistrationPanel:
    """The panel as the application shows it."""
    scene, eventLoop = slicer.mrmlScene, QtEventLoop()
    return RegistrationPanel(
        slicer.util.loadUI(uiFile),
        logic,
        scene,
        eventLoop,
        display=ResultDisplay(scene),
        makeInstaller=lambda ask, tell: Installer(slicer, ask, tell),
        nextWorker=NextWorker(eventLoop),
    )


class RegistrationPanel:
    """The module's panel.

    Args:
        widget: what `slicer.util.loadUI` made of the .ui file.
        logic: a `RegistrationLogic`.
        scene: the MRML scene.
        eventLoop: a `QtEventLoop`.
        display: a `ResultDisplay`.
        makeInstaller: given `ask` and `tell`, makes what installs the worker's needs, see `Installer`.
        nextWorker: a `NextWorker`.
    """

    def __init__(
        self,
        widget: Any,
        logic: Any,
        scene: Any,
        eventLoop: Any,
        *,
        display: Any,
        makeInstaller: Callable[[Callable[[str], bool], Callable[[str], None]], Any],
        nextWorker: Any,
    ) -> None:
        self.widget, self.logic, self.nextWorker = widget, logic, nextWorker
        self.result: RegistrationOutputs | None = None
        self._showsSoon = False
        self._closed = False
        self._scene, self._eventLoop = scene, eventLoop
        self._installer = makeInstaller(self._ask, self._tell)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        samples = [
            (brainTumorTitle(), _("Two scans of one patient. Needs the internet."), self._onBrainTumor),
            (
                syntheticTitle(),
                _("Two made-up patients with organs. Takes a few seconds."),
                self._onSynthetic,
            ),
        ]
        self.inputs, self.outputs = InputPanel(ui, samples), OutputPanel(ui)
        self.advanced, self.quality = AdvancedPanel(ui), QualityPanel(ui)
        self.view = ViewControls(ui, display)
        self.run = RunPanel(ui, self._onRegister, self._onBusy)
        controls = (
            self.inputs.controls | self.outputs.controls | self.quality.controls | self.advanced.controls
        )
        widget.setMRMLScene(scene)
        self._watch = InputWatch(eventLoop, self._showState)
        self.parameterPanel = ParameterPanel(
            ui.registrationSelector, controls, scene, eventLoop, self._showState, self._onRegistrationChosen
        )
        self._showState()

    @property
    def parameters(self) -> Any:
        """The `RegistrationParameters` shown; None while the scene is closed."""
        return self.parameterPanel.parameters

    def enter(self) -> None:
        """The user has come to the module."""
        self.parameterPanel.enter()
        self._showState()  # segmentations and point lists may have been edited meanwhile

    def exit(self) -> None:
        """The user has left for another module; a running registration goes on."""
        self.parameterPanel.exit()
        self.view.exit()

    def close(self) -> None:
        """Before the widget goes: end what runs, bring the views back, let go of the scene."""
        self._closed = True
        self.run.close()
        self.nextWorker.close()
        self.view.close()
        self._watch.close()
        self.parameterPanel.close()
        self.widget.setMRMLScene(None)

    # --- registering

    def _onRegister(self) -> None:
        inputs, settings = self.parameters.inputs(), self.parameters.settings()
        wanted = self.parameters.outputs()
        if not self._installed(settings):
            return
        self.run.run(
            lambda **callbacks: self.logic.register(
                **vars(inputs),
                **vars(settings),
                outputs=wanted,
                blocking=False,
                warm=self.nextWorker.warm,
                **callbacks,
            ),
            self._onFinished,
        )

    @property
    def busy(self) -> bool:
        """A task is running, or its result is about to be shown."""
        return self.run.busy or self._showsSoon

    def _onFinished(self, outputs: RegistrationOutputs) -> None:
        self.parameters.setResult(outputs)
        self._showsSoon = True
        self._eventLoop.later(0, self._showNewResult)  # a step of its own: nothing may block for long
        self.ui.viewSection.collapsed = self.ui.qualitySection.collapsed = False
        text = _("Finished in {time} min.").format(time=clock(outputs.report.get("seconds") or 0.0))
        warnings = len(doubts(outputs.report))
        self.run.say(
            text + " " + _("Warnings: {count}, see Quality.").format(count=warnings) if warnings else text
        )

    def _showNewResult(self) -> None:
        try:
            self._showResult()
            nodes = displayedNodes(self.parameters) if self.parameters is not None else None
            if nodes is not None and self.parameterPanel.entered:  # else the views are another module's
                slicer.util.setSliceViewerLayers(
                    background=nodes.fixed, foreground=nodes.warped, foregroundOpacity=1.0
                )
        except Exception as error:  # the results are there, but cannot be shown: the user is told
            self.run.fail(error)
        finally:
            self._showsSoon = False

    def _installed(self, settings: RegistrationSettings) -> bool:
        """Whether the worker has what it needs; asks to install it, and tells what went wrong."""
        if settings.python:  # another Python is the user's own; the worker says what it lacks
            return True
        try:
            self._installer.ensure()
        except Exception as error:  # whatever it is, the user is told
            self.run.fail(error)
            return False
        self.run.say("")
        return True

    def _ask(self, question: str) -> bool:
        return bool(slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Install packages?")))

    def _tell(self, text: str) -> None:
        self.run.say(text)
        self._eventLoop.process()

    # --- samples

    def _onBrainTumor(self) -> None:
        try:
            with slicer.util.WaitCursor():
                nodes = loadBrainTumor(self._scene)
        except Exception as error:  # the network, the file, Slicer's own module: the user is told
            self.run.fail(error)
            return
        self._useSample(preset="brain-mr", **nodes)

    def _onSynthetic(self) -> None:
        settings = self.parameters.settings()
        if self._installed(settings):
            self.run.run(
                lambda **callbacks: self.logic.addSyntheticPair(
                    settings=settings, blocking=False, warm=self.nextWorker.warm, **callbacks
                ),
                self._onSyntheticMade,
            )

    def _onSyntheticMade(self, nodes: dict[str, Any]) -> None:
        self._useSample(
            preset="fast",
            fixed=nodes["fixed"],
            moving=nodes["moving"],
            segmentations=(nodes["movingSegmentation"],),
            fixedSegmentation=nodes["fixedSegmentation"],
        )

    def _useSample(self, **values: Any) -> None:
        self.parameterPanel.set(**values)
        application = slicer.app.applicationLogic()
        application.GetSelectionNode().SetActiveVolumeID(values["fixed"].GetID())
        application.PropagateVolumeSelection()  # into all slice views, as for a scan that was opened
        self.run.say(_("The sample is loaded. Press Register."))

    # --- what the panel says

    def _showState(self) -> None:
        """Whether Register makes sense, why not, and what it will need."""
        if self.parameters is None:
            self._watch.watch([])
            self.run.allow(_("The module is not shown, or the scene is being closed."))
            return
        inputs, settings = self.parameters.inputs(), self.parameters.settings()
        nodes = vars(inputs) | {"segmentations": None}
        self._watch.watch([*nodes.values(), *inputs.segmentations])
        problem = self.logic.problem(inputs, settings, self.parameters.outputs())
        self.run.allow(problem)
        self.ui.estimateLabel.text = problem or self._estimate(inputs, settings)

    def _estimate(self, inputs: RegistrationInputs, settings: RegistrationSettings) -> str:
        try:
            needed = self.logic.estimate(inputs, settings)
        except InputError as error:
            return str(error)
        return _("Needs up to {needed:.1f} GB of memory; {free:.1f} GB are free. Runs on {place}.").format(
            needed=needed / 1000, free=available_memory_mb() / 1000, place=placeWords(likelyDevice(settings))
        )

    def _onBusy(self, busy: bool) -> None:
        ui = self.ui
        for widget in (ui.inputsSection, ui.outputsSection, ui.advancedSection, ui.referenceGroup):
            widget.enabled = not busy
        if busy:
            self.nextWorker.hold()
            return
        self._showState()
        if self.parameters is not None and not self._closed:
            self.nextWorker.prepare(self.parameters.settings())

    def _onRegistrationChosen(self) -> None:
        """Another registration is shown, or none while the scene is closed."""
        if self.parameters is None:
            self.run.cancel()
            self.nextWorker.close()
        else:
            self.run.say(" ".join(self.parameters.problems()), wrong=True)
        self._showResult()

    def _showResult(self) -> None:
        """Fill the sections View and Quality from the last run of the registration shown."""
        if self._closed:
            return
        result = self.parameters.result() if self.parameters is not None else RegistrationOutputs()
        self.result = result if result.report else None
        self.quality.show(result.qualityTable, result.report)
        self.view.setNodes(displayedNodes(self.parameters) if self.result else None)
