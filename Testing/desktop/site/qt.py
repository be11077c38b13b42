"""`import qt` as in the application, on PySide6 (see desktop.widgets)."""

from desktop.widgets import application
from desktop.widgets.catalogue import qtNames

application()  # in Slicer there is one before any module is loaded
globals().update(qtNames())
