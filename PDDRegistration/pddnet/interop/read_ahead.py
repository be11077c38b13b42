"""Images that are read in the background, while something else keeps this thread busy: the import of PyTorch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.05


@dataclass
class ImageAhead:
    """An image that is being read, or will be.

    Args:
        path, series: as for `read_scalar`.
    """

    path: Path
    series: str | None = None
    _read: threading.Event = field(default_factory=threading.Event)
    _image: Any = None
    _error: BaseException | None = None

    def image(self, check: Callable[[], None]) -> Any:
        """The `SimpleITK.Image`, once it has been read; it is handed over once.

        Args:
            check: called while waiting; it may raise to wait no longer.

        Raises:
            InputError: as `read_scalar`.
        """
        while not self._read.wait(_POLL_SECONDS):
            check()
        if self._error is not None:
            raise self._error
        image, self._image = self._image, None
        return image

    def read(self) -> None:
        """Read it now."""
        try:
            from pddnet.interop.itk_images import read_scalar  # SimpleITK takes its time, too

            self._image = read_scalar(self.path, self.series)
        except BaseException as error:  # told to whoever asks for the image
            self._error = error
        self._read.set()


@dataclass(frozen=True)
class RegisterImages:
    """What every registration reads."""

    fixed: ImageAhead
    moving: ImageAhead
    labels: tuple[ImageAhead, ...]

    @classmethod
    def ahead(
        cls,
        fixed: tuple[Path, str | None],
        moving: tuple[Path, str | None],
        labels: Sequence[Path],
    ) -> RegisterImages:
        """Begin to read them, one after the other, in a thread that nobody need wait for.

        Args:
            fixed, moving: path and series; see `read_scalar`.
        """
        images = cls(ImageAhead(*fixed), ImageAhead(*moving), tuple(ImageAhead(path) for path in labels))

        def read() -> None:
            for image in (images.fixed, images.moving, *images.labels):
                image.read()

        threading.Thread(target=read, name="read ahead", daemon=True).start()
        return images
