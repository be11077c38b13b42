"""One picture of a registration."""

from pddnet.figure.drawing import registration_figure

__all__ = ["registration_figure"]
