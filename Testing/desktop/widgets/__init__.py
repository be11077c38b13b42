"""Stand-ins of the application's widgets on PySide6, as strict as the application is.

`import qt` and `import ctk` (Testing/desktop/site) give the proxies, `install(slicer)` adds the qMRML classes.
"""

from .catalogue import install
from .loader import grab, loadUI
from .proxy import unwrap, wrap
from .qapplication import application
from .signals import complaints

__all__ = ["application", "complaints", "grab", "install", "loadUI", "unwrap", "wrap"]
