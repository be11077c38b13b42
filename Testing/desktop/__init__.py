"""Stand-ins of the desktop application, so that the module's own files run and are tested without it.

Real: the MRML scene, its nodes, logics and views (slicer-core). Stand-ins: what the application adds around them, which
are `slicer.app`, `slicer.modules`, `ScriptedLoadableModule`, and the widgets of Qt, CTK and qMRML.
"""
