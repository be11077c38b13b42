"""Parameters as controls show them: each control reads and writes one value and says when the user changed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


def connected(widget: Any, signature: str, slot: Callable[..., Any]) -> None:
    """Connect a signal; a misspelt signature, for which Qt only prints a warning, is an error.

    Raises:
        ValueError: the widget has no such signal.
    """
    if not widget.connect(signature, slot):
        raise ValueError(f"{widget.objectName} ({widget.className()}) has no signal {signature}")


@dataclass(frozen=True)
class Control:
    """One control: `show` a value, `read` it back, `listen(slot)` to changes; the slot takes no arguments."""

    widget: Any
    show: Callable[[Any], None]
    read: Callable[[], Any]
    listen: Callable[[Callable[[], None]], None]


def _listening(widget: Any, signature: str) -> Callable[[Callable[[], None]], None]:
    return lambda slot: connected(widget, signature, lambda *_arguments: slot())


def nodeControl(selector: Any) -> Control:
    """A qMRMLNodeComboBox: a node or None."""

    def listen(slot: Callable[[], None]) -> None:
        connected(selector, "currentNodeChanged(vtkMRMLNode*)", lambda _node: slot())
        # Slicer 5.12 tells of a change only where the text changes, which it does not between scans of one name
        connected(selector, "nodeActivated(vtkMRMLNode*)", lambda _node: slot())

    return Control(selector, selector.setCurrentNode, selector.currentNode, listen)


def checkedNodesControl(selector: Any) -> Control:
    """A qMRMLCheckableNodeComboBox: the ticked nodes, as a tuple."""

    def read() -> tuple[Any, ...]:
        return tuple(selector.checkedNodes())

    def show(nodes: Sequence[Any]) -> None:
        wanted, ticked = ({node.GetID() for node in some} for some in (nodes, read()))
        for index in range(selector.nodeCount()):
            node = selector.nodeFromIndex(index)
            if node.GetID() in wanted - ticked:
                selector.check(node)
            elif node.GetID() in ticked - wanted:
                selector.uncheck(node)

    return Control(selector, show, read, _listening(selector, "checkedNodesChanged()"))


def checkBoxControl(box: Any) -> Control:
    """A QCheckBox: True or False."""

    def show(value: bool) -> None:
        box.checked = value

    return Control(box, show, lambda: box.checked, _listening(box, "toggled(bool)"))


def numberControl(box: Any, signature: str = "valueChanged(int)", nothing: float | None = None) -> Control:
    """A spin box or slider: its value, or None where it shows `nothing`."""

    def show(value: float | None) -> None:
        box.setValue(nothing if value is None else value)

    def read() -> float | None:
        return None if nothing is not None and box.value == nothing else box.value

    return Control(box, show, read, _listening(box, signature))


def choiceControl(box: Any, values: Sequence[Any]) -> Control:
    """A QComboBox whose entries stand for `values`, in that order; a value it does not have is added to it."""
    known = list(values)

    def show(value: Any) -> None:
        if value not in known:
            known.append(value)
            box.addItem(str(value))
        box.setCurrentIndex(known.index(value))

    return Control(
        box, show, lambda: known[max(0, box.currentIndex)], _listening(box, "currentIndexChanged(int)")
    )


def pathControl(line: Any) -> Control:
    """A ctkPathLineEdit: a path, or "" for none."""

    def show(path: str) -> None:
        if line.currentPath != path:  # setting it moves the cursor to the end while the user is typing
            line.currentPath = path

    return Control(line, show, lambda: line.currentPath, lambda slot: listenToPath(line, slot))


def listenToPath(line: Any, slot: Callable[[], Any]) -> None:
    """Call `slot` when the path of a ctkPathLineEdit changes; it tells that it was emptied as an invalid input only."""
    connected(line, "currentPathChanged(QString)", lambda *_arguments: slot())
    connected(line, "validInputChanged(bool)", lambda valid: None if valid else slot())
