"""The colours of drawn reads: one hue, from the ground to blue, on which letters stay readable at every value.

It is safe for the colour-blind, and nothing is told by colour alone: segments are underlined or in brackets as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from wyr_batch.draw.runs import LEVELS


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours as #rrggbb.

    Attributes:
        paper, ink: ground and letters; dim: what is said beside; edge: frames.
        mask: ground of tokens whose mask is 1; line: under segments.
    """

    paper: str
    ink: str
    dim: str
    edge: str
    mask: str
    line: str

    def shade(self, level: int) -> str:
        """Return the ground of tokens of a level, mixed of paper and mask.

        >>> LIGHT.shade(0), LIGHT.shade(15)
        ('#ffffff', '#5c9af6')
        """
        share = level / (LEVELS - 1)
        pairs = zip(channels(self.paper), channels(self.mask), strict=True)
        return "#" + "".join(f"{round(paper + share * (mask - paper)):02x}" for paper, mask in pairs)


def channels(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255.

    >>> channels("#5c9af6")
    (92, 154, 246)
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


LIGHT = Palette("#ffffff", "#1b1f24", "#5f6873", "#d5dae0", "#5c9af6", "#1d4ed8")
DARK = Palette("#14171c", "#e8eaed", "#9aa4af", "#333a42", "#2662c4", "#93c5fd")
