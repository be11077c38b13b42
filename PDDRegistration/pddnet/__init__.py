"""Deformable registration of medical scans with probabilistic dense displacements."""

__version__ = "0.1.0"
