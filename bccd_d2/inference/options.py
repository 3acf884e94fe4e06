"""What a prediction does beside running the network once, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from bccd_d2.errors import InputError


@dataclass(frozen=True)
class TestTimeAugmentation:
    """The views of an image that are predicted and merged; the image itself is always one of them.

    Attributes:
        flip: mirror images too.
        rot90: turns by multiples of 90 degrees too; with ``flip`` these are the eight symmetries of a square.
        scales: each view at each of these sizes, relative to the size the model was trained at.
    """

    # pytest would take the name for that of a test.
    __test__ = False

    flip: bool = True
    rot90: bool = True
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise InputError(
                f"TEST.TTA.SCALES: expected one or more numbers above 0, found {list(self.scales)}"
            )


@dataclass(frozen=True)
class PredictionOptions:
    """How images are predicted.

    Lengths are in pixels of the image at the magnification the model was trained at: native pixels, unless
    ``diameter``, ``microns_per_pixel`` or ``scale`` say that the image is magnified otherwise.

    Attributes:
        score_threshold: leave out cells below this score; the model itself leaves out those below
            ``MODEL.ROI_HEADS.SCORE_THRESH_TEST``.
        tile_size: side of a tile. An image of no more pixels than one tile goes through the network whole.
        overlap: how far neighbouring tiles overlap; more than the largest cell.
        batch_size: tiles that go through the network together; 0 for as many as fit the memory.
        augmentation: views to predict and merge; ``None`` for what ``TEST.TTA`` says.
        diameter: diameter of a typical cell in native pixels of the image, which is resized so that it becomes
            ``INPUT.CELL_DIAMETER``.
        microns_per_pixel: of the image, in place of what its file says; it is resized so that it becomes
            ``INPUT.MICRONS_PER_PIXEL``, unless ``diameter`` is given.
        scale: the factor itself: pixels at the training magnification per native pixel. Wins over both.
        refine: cut masks that look like several touching cells by a watershed, see
            :func:`bccd_d2.inference.refinement.split_merged`.
        exclusive: give each pixel to one cell at most, see :func:`bccd_d2.inference.refinement.without_overlaps`.
    """

    score_threshold: float = 0.0
    tile_size: int = 1664
    overlap: int = 256
    batch_size: int = 0
    augmentation: TestTimeAugmentation | None = None
    diameter: float | None = None
    microns_per_pixel: float | None = None
    scale: float | None = None
    refine: bool = False
    exclusive: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold <= 1:
            raise InputError(f"score_threshold: expected a number from 0 to 1, found {self.score_threshold}")
        if not 0 <= self.overlap <= self.tile_size / 2:
            raise InputError(
                f"overlap: expected 0 to half the tile size ({self.tile_size}), found {self.overlap}"
            )
        if self.tile_size < 64:
            raise InputError(f"tile_size: expected at least 64, found {self.tile_size}")
        if self.batch_size < 0:
            raise InputError(
                f"batch_size: expected 0 (what fits the memory) or more, found {self.batch_size}"
            )
        for name in ("diameter", "microns_per_pixel", "scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name}: expected a number above 0, found {value}")


DEFAULT_OPTIONS = PredictionOptions()
