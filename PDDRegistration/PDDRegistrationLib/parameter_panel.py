"""Controls and the parameters of the registration that is shown, each following the other; several in one scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from .controls import Control, connected
from .parameters import MODULE, RegistrationParameters

_NODE_CLASS = "vtkMRMLScriptedModuleNode"


class ParameterPanel(VTKObservationMixin):
    """Which registration of the scene is shown, and its parameters in the controls.

    Args:
        selector: the node selector of registrations.
        controls: by the names of the parameters.
        scene: the MRML scene.
        eventLoop: a `QtEventLoop`.
        onChanged: called after a parameter has changed, whoever changed it.
        onChosen: called after another registration is shown, or none.
    """

    def __init__(
        self,
        selector: Any,
        controls: Mapping[str, Control],
        scene: Any,
        eventLoop: Any,
        onChanged: Callable[[], None],
        onChosen: Callable[[], None],
    ) -> None:
        VTKObservationMixin.__init__(self)
        self._selector, self._controls = selector, controls
        self._scene, self._eventLoop = scene, eventLoop
        self._onParametersChanged, self._onChosen = onChanged, onChosen
        self.parameters: RegistrationParameters | None = None
        self._showing = self.entered = self._closed = False
        for name, control in controls.items():
            control.listen(lambda name=name: self._onControl(name))
        selector.addAttribute(_NODE_CLASS, "ModuleName", MODULE)
        selector.setNodeTypeLabel(_("registration"), _NODE_CLASS)
        connected(selector, "currentNodeChanged(vtkMRMLNode*)", self._onSelected)
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneCloses)
        self.addObserver(scene, scene.EndCloseEvent, self._onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneChanged)
        self.addObserver(scene, scene.NodeRemovedEvent, self._onNodeRemoved)

    def enter(self) -> None:
        """The user has come to the module: there is a registration from now on."""
        self.entered = True
        self._choose()

    def exit(self) -> None:
        """The user has left; no registration is made for a new scene."""
        self.entered = False

    def close(self) -> None:
        """Let go of the scene."""
        self._closed = True
        self.removeObservers()
        self.parameters = None

    def use(self, node: Any) -> None:
        """Show the registration of a parameter node; None shows none."""
        if self.parameters is not None:
            if node is self.parameters.node:
                return
            self.removeObserver(self.parameters.node, vtk.vtkCommand.ModifiedEvent, self._onNode)
        self.parameters = None if node is None else RegistrationParameters(node)
        if node is not None:
            node.SetModuleName(MODULE)  # a node made with the selector has the attribute only
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onNode)
        if self._selector.currentNode() is not node:
            self._selector.setCurrentNode(node)
        self._show()
        self._onChosen()

    def set(self, **values: Any) -> None:
        """Change several parameters at once."""
        assert self.parameters is not None
        with self.parameters.batch():
            for name, value in values.items():
                setattr(self.parameters, name, value)

    def _choose(self) -> None:
        if self.parameters is None and not self._closed:
            self.use(RegistrationParameters.firstNode(self._scene))

    def _onControl(self, name: str) -> None:
        """The user has changed a control."""
        if not self._showing and self.parameters is not None:
            setattr(self.parameters, name, self._controls[name].read())

    def _onNode(self, *_arguments: Any) -> None:
        if not self._showing:
            self._show()

    def _show(self) -> None:
        """Write the parameters into the controls; their signals are not answered meanwhile."""
        self._showing = True
        try:
            if self.parameters is not None:
                for name, control in self._controls.items():
                    control.show(getattr(self.parameters, name))
        finally:
            self._showing = False
        self._onParametersChanged()

    def _onSelected(self, node: Any) -> None:
        if node is not None and not self._closed:  # after Reload the old panel is hidden, not gone
            self.use(node)

    def _onSceneCloses(self, *_arguments: Any) -> None:
        self.use(None)

    def _onSceneChanged(self, *_arguments: Any) -> None:
        """Later, when reading is over: a scene is closed before another is read in its place."""
        if self.entered:
            self._eventLoop.later(0, self._choose)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, _caller: Any, _event: str, node: Any) -> None:
        if self.parameters is not None and node is self.parameters.node:
            self.use(None)
            self._onSceneChanged()
