"""A picture that is drawn: what the report, MLflow and Prefect get."""

import struct
from dataclasses import dataclass

PIXELS_PER_INCH = 150
"""Resolution that pictures are drawn at."""

SHOWN_PIXELS_PER_INCH = 100
"""Size that pictures are shown at: letters of 10 points have 14 pixels, and stay sharp."""


@dataclass(frozen=True)
class Picture:
    """A picture with its words: ``caption`` says how to read it, ``alt`` what is seen.

    ``name`` is the stem of its file name, ``png`` the file.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: bytes

    @property
    def shown_width(self) -> int:
        """Width to show it at, in CSS pixels."""
        width: int = struct.unpack(">I", self.png[16:20])[0]
        return round(width * SHOWN_PIXELS_PER_INCH / PIXELS_PER_INCH)
