"""`import ctk` as in the application, on PySide6 (see desktop.widgets)."""

from desktop.widgets import application
from desktop.widgets.catalogue import ctkNames

application()
globals().update(ctkNames())
