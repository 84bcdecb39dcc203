"""Finds the lines of text in a picture with a near-uniform ground; cuts long ones at word gaps.

`model.read_text` feeds the segments to the line reader, whose window is 32 x 256 pixels. The method
is the recursive XY cut: blank rows part lines, wide blank columns part blocks. It works for dark
text on light ground and the other way round; it does not look for text in photographs.

Source: Nagy & Seth, 1984, Hierarchical representation of optically scanned documents.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int16, UInt8
from PIL import Image

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first pixel outside."""

DETECTION_SIDE = 2000  # longer sides are scaled down for the search, not for reading
MIN_CONTRAST = 24  # of 255: what still counts as ink
MAX_NOISE = 32  # of 255: a ground that strays further is no ground
MIN_HEIGHT = 5  # pixels: anything lower is a rule or dirt
COLUMN_GAP = 2.0  # line heights of blank that part two blocks
WORD_GAP = 0.18  # line heights of blank that part two words
PANEL_FILL = 0.6  # share of ink above which a box is a coloured panel, not a drawn frame
RIM_FILL = 0.9  # share of ink along each side of a panel or a frame
RULE_ASPECT = 12  # a solid bar longer than this, in its own widths, is a rule
MARGIN = 0.15  # of the line's height, left around it for the reader
SQUEEZE = 1.35  # a line may be this much wider than the window before it is cut: still readable
MAX_DEPTH = 24  # cuts within cuts


class Segment(NamedTuple):
    """A part of a line that fits the reader's window."""

    box: Box
    joint: str  # what stands between the segment before and this one: "" or " "


class Line(NamedTuple):
    """A line of text: its tight box, and the segments to read, from left to right."""

    box: Box
    segments: tuple[Segment, ...]


def find_lines(image: Image.Image, window_aspect: float = 8.0) -> list[Line]:
    """Finds lines of text in reading order.

    Args:
      image: RGB.
      window_aspect: width / height of the reader's window.

    Returns:
      The lines; none for a blank picture. A picture that is one line gives one line, read whole
      unless it is too long. On a ground that is not near-uniform the picture counts as one line
      if it is at least twice as wide as high, else as without text.
    """
    scale = max(1.0, max(image.size) / DETECTION_SIDE)
    small = image
    if scale > 1:
        small = image.resize(
            [max(1, round(side / scale)) for side in image.size], Image.Resampling.BOX
        )
    pixels = np.asarray(small.convert("RGB"))
    mask = ink(pixels)
    whole = (0, 0, *image.size)
    # So much ink is no text on a ground: the border was not the ground, or it is a photograph.
    if ground(pixels)[1] > MAX_NOISE or mask.mean() > PANEL_FILL:
        return [Line(whole, (Segment(whole, ""),))] if image.width >= 2 * image.height else []
    found = list(_lines_of(pixels, mask, panels=2))
    lines = []
    for box, local in found:
        alone = len(found) == 1 and box[3] - box[1] >= 0.35 * mask.shape[0]
        segments = split_line(local, box, mask.shape, window_aspect, whole=alone)
        lines.append(
            Line(
                _scaled(box, scale, image.size),
                tuple(
                    Segment(_scaled(segment.box, scale, image.size), segment.joint)
                    for segment in segments
                ),
            )
        )
    return lines


def ground(pixels: UInt8[np.ndarray, "y x 3"]) -> tuple[Int16[np.ndarray, "3"], float]:
    """Median colour of the picture's outermost pixels, and how far they stray from it (sigma)."""
    # Medians: text that touches the border must not count as ground. 1.4826 median deviations are
    # one sigma of a Gaussian.
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(np.int16)
    colour = np.median(frame, axis=0).astype(np.int16)
    return colour, 1.4826 * float(np.median(np.abs(frame - colour[None]).max(axis=-1)))


def ink(pixels: UInt8[np.ndarray, "y x 3"]) -> Bool[np.ndarray, "y x"]:
    """Marks pixels that differ from the ground; single ones are dirt."""
    colour, noise = ground(pixels)
    distance = np.abs(pixels.astype(np.int16) - colour[None, None]).max(axis=-1)
    # Not the one pixel furthest from the ground, which may be dirt: the two-thousandth.
    few = max(1, distance.size // 2000)
    peak = float(np.partition(distance.ravel(), -few)[-few])
    mask = distance > max(MIN_CONTRAST, 4 * noise, 0.25 * peak)
    return mask & (_neighbours(mask) >= 2)


def split_line(
    mask: Bool[np.ndarray, "y x"],
    box: Box,
    limits: tuple[int, ...],
    window_aspect: float,
    *,
    whole: bool,
) -> list[Segment]:
    """Cuts a line into segments that fit the reader's window, at word gaps where there are any.

    Args:
      mask: ink of the line's tight box.
      box: where that box lies in the picture.
      limits: height and width of the picture.
      window_aspect: width / height of the window.
      whole: the picture is this line: read it to its borders.

    Returns:
      Segments with a margin of background, left to right.
    """
    x0, y0, x1, y1 = box
    margin = max(2, round(MARGIN * (y1 - y0)))
    top, bottom = max(0, y0 - margin), min(limits[0], y1 + margin)
    left, right = max(0, x0 - margin), min(limits[1], x1 + margin)
    uncut = (0, 0, limits[1], limits[0]) if whole else (left, top, right, bottom)
    if uncut[2] - uncut[0] <= SQUEEZE * window_aspect * (uncut[3] - uncut[1]):
        return [Segment(uncut, "")]
    cuts = list(_cuts(mask, window_aspect * (bottom - top) - 2 * margin))
    segments = []
    for i, (start, end, joint) in enumerate(cuts):
        # Where a word was cut there is no margin: the neighbour's letters stand there.
        open_left = i == 0 or joint == " "
        open_right = i == len(cuts) - 1 or cuts[i + 1][2] == " "
        start, end = x0 + start - margin * open_left, x0 + end + margin * open_right
        segments.append(Segment((max(left, start), top, min(right, end), bottom), joint))
    return segments


def _cuts(mask: Bool[np.ndarray, "y x"], room: float) -> Iterator[tuple[int, int, str]]:
    """Yields first column, end column and joint of each segment of at most about `room` columns."""
    height, width = mask.shape
    columns = mask.sum(axis=0)
    gaps = [gap for gap in _runs(columns == 0) if gap[1] - gap[0] >= max(2, WORD_GAP * height)]
    count = int(np.ceil(width / room))
    # Segments of like width, rather than full ones and a stump.
    room = min(room, 1.25 * width / count)
    start, joint = 0, ""
    while width - start > room:
        fitting = [gap for gap in gaps if start < gap[0] <= start + room]
        slack = [gap for gap in gaps if start + room < gap[0] <= start + SQUEEZE * room]
        if fitting or slack:
            gap = fitting[-1] if fitting else slack[0]
            yield start, gap[0], joint
            start, joint = gap[1], " "
            continue
        if width - start <= SQUEEZE * room:
            break
        low, high = start + int(0.6 * room), start + int(room)
        cut = low + int(np.argmin(columns[low:high]))
        yield start, cut, joint
        start, joint = cut, ""
    yield start, width, joint


def _lines_of(
    pixels: UInt8[np.ndarray, "y x 3"], mask: Bool[np.ndarray, "y x"], panels: int
) -> Iterator[tuple[Box, Bool[np.ndarray, "y x"]]]:
    """Yields tight boxes of lines with their ink; looks `panels` levels deep into panels."""
    for x0, y0, x1, y1 in _cut(mask, (0, 0, mask.shape[1], mask.shape[0]), MAX_DEPTH):
        local = mask[y0:y1, x0:x1]
        ruled = local.mean() > RIM_FILL and max(local.shape) > RULE_ASPECT * min(local.shape)
        # A solid bar parts lines, but has nothing to read.
        if y1 - y0 < MIN_HEIGHT or ruled:
            continue
        rim = _rim(local)
        if rim == 0:
            yield (x0, y0, x1, y1), local
        elif panels > 0 and 2 * rim + MIN_HEIGHT <= min(local.shape):
            inner = pixels[y0 + rim : y1 - rim, x0 + rim : x1 - rim]
            inner_mask = ink(inner)
            if inner_mask.mean() <= PANEL_FILL:
                for box, inside in _lines_of(inner, inner_mask, panels - 1):
                    yield _moved(box, x0 + rim, y0 + rim), inside


def _rim(local: Bool[np.ndarray, "y x"]) -> int:
    """Pixels to peel off a coloured panel or a drawn frame to see what is in it; 0 for text."""
    widest = min(local.shape) // 4
    if widest < MIN_HEIGHT // 2:  # an I or a dash
        return 0
    peeled = 0
    while peeled < widest:
        part = local[peeled : local.shape[0] - peeled, peeled : local.shape[1] - peeled]
        sides = (part[0], part[-1], part[:, 0], part[:, -1])
        if min(float(side.mean()) for side in sides) < RIM_FILL:
            return peeled + 1 if peeled else 0
        peeled += 1
        if peeled == 2 and local.mean() > PANEL_FILL:
            return peeled
    return peeled


def _cut(mask: Bool[np.ndarray, "y x"], box: Box, depth: int) -> Iterator[Box]:
    """Recursive XY cut of a box down to single lines, in reading order."""
    tight = _tight(mask, box)
    if tight is None:
        return
    x0, y0, x1, y1 = tight
    part = mask[y0:y1, x0:x1]
    bands = _bands(part)
    height = float(np.median([bottom - top for top, bottom in bands]))
    gutters = [gap for gap in _runs(~part.max(axis=0)) if gap[1] - gap[0] > COLUMN_GAP * height]
    if depth == 0 or (not gutters and len(bands) == 1):
        yield tight
    # Columns before rows: a page of two columns is read down the first one.
    elif gutters:
        starts = [0, *(gap[1] for gap in gutters)]
        ends = [*(gap[0] for gap in gutters), x1 - x0]
        for start, end in zip(starts, ends, strict=True):
            yield from _cut(mask, (x0 + start, y0, x0 + end, y1), depth - 1)
    else:
        for top, bottom in bands:
            yield from _cut(mask, (x0, y0 + top, x1, y0 + bottom), depth - 1)


def _bands(part: Bool[np.ndarray, "y x"]) -> list[tuple[int, int]]:
    """Runs of rows with ink; dots, accents and underscores stay with their line."""
    bands = _runs(part.max(axis=1))
    while len(bands) > 1:
        heights = [bottom - top for top, bottom in bands]
        # The smallest first: a dot joins its letters before they are taken for a part of a line.
        for i in np.argsort(heights, kind="stable"):
            near = [
                j for j in (i - 1, i + 1) if 0 <= j < len(bands) and _belongs(bands[i], bands[j])
            ]
            if near:
                j = max(near, key=lambda j: -_distance(bands[i], bands[j]))
                first, second = min(i, j), max(i, j)
                bands[first : second + 1] = [(bands[first][0], bands[second][1])]
                break
        else:
            break
    return bands


def _belongs(small: tuple[int, int], large: tuple[int, int]) -> bool:
    height = large[1] - large[0]
    return small[1] - small[0] < 0.45 * height and _distance(small, large) < 0.3 * height


def _distance(a: tuple[int, int], b: tuple[int, int]) -> int:
    return max(a[0], b[0]) - min(a[1], b[1])


def _tight(mask: Bool[np.ndarray, "y x"], box: Box) -> Box | None:
    x0, y0, x1, y1 = box
    part = mask[y0:y1, x0:x1]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if len(rows) == 0:
        return None
    return (
        x0 + int(columns[0]),
        y0 + int(rows[0]),
        x0 + int(columns[-1]) + 1,
        y0 + int(rows[-1]) + 1,
    )


def _runs(flags: Bool[np.ndarray, "s"]) -> list[tuple[int, int]]:
    """First and end index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _neighbours(mask: Bool[np.ndarray, "y x"]) -> Int[np.ndarray, "y x"]:
    """Marked pixels among the eight around each pixel."""
    padded = np.pad(mask, 1).astype(np.int8)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] - mask


def _moved(box: Box, x: int, y: int) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def _scaled(box: Box, scale: float, size: tuple[int, int]) -> Box:
    x0, y0, x1, y1 = (side * scale for side in box)
    return (
        int(x0),
        int(y0),
        min(size[0], int(np.ceil(x1))),
        min(size[1], int(np.ceil(y1))),
    )
