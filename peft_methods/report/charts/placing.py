"""Placement of labels next to points without overlaps. Everything is a rectangle, in inches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Distances of a label from its point, nearest first.
RINGS = (0.09, 0.16, 0.26, 0.38, 0.52, 0.7, 0.9, 1.15, 1.45, 1.8, 2.2)
# Degrees, best first: a label to the right of its point is the easiest to read.
DIRECTIONS = (0, 180, 90, 270, 45, 315, 135, 225, 22, 338, 158, 202, 67, 293, 113, 247)
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle with sides parallel to the axes."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def middle(self) -> Point:
        """The centre."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def overlaps(self, other: Box) -> bool:
        """Whether the two share more than an edge."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def within(self, other: Box) -> bool:
        """Whether the rectangle lies completely inside `other`."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )


@dataclass(frozen=True)
class LabelPlacement:
    """The place of a label, and whether a leader line must connect it with its point."""

    box: Box
    has_leader: bool

    def leader_end(self, point: Point) -> Point:
        """Where a leader line from this point meets the label."""
        return min(max(point[0], self.box.left), self.box.right), min(
            max(point[1], self.box.bottom), self.box.top
        )


def box_around(x: float, y: float, half_width: float, half_height: float | None = None) -> Box:
    """Make a rectangle from its centre."""
    half_height = half_width if half_height is None else half_height
    return Box(x - half_width, y - half_height, x + half_width, y + half_height)


def place_labels(
    points: Sequence[Point], sizes: Sequence[Point], obstacles: Sequence[Box], bounds: Box
) -> list[LabelPlacement] | None:
    """Find a free place for each point's label of this (width, height).

    Returns None if a label finds no place. No label may cover `obstacles`. Greedy: points with the
    most neighbours go first, because they have the fewest choices.
    """
    occupied, found = list(obstacles), dict[int, LabelPlacement]()
    crowded = sorted(
        range(len(points)),
        key=lambda i: (-sum(math.dist(points[i], other) < 0.6 for other in points), i),
    )
    for index in crowded:
        for candidate in _candidates(points[index], sizes[index]):
            free = candidate.box.within(bounds) and not any(
                candidate.box.overlaps(box) for box in occupied
            )
            if free and not _is_crossed(points[index], candidate, occupied):
                found[index] = candidate
                occupied.append(candidate.box)
                break
        else:
            return None
    return [found[index] for index in range(len(points))]


def _is_crossed(point: Point, label: LabelPlacement, occupied: Sequence[Box]) -> bool:
    """Whether the leader line would cross another element, and so seem to point to that."""
    if not label.has_leader:
        return False
    (x, y), (to_x, to_y) = point, label.leader_end(point)
    steps = [
        box_around(x + (to_x - x) * part / 16, y + (to_y - y) * part / 16, 0.005)
        for part in range(17)
    ]
    own = [box for box in occupied if box.overlaps(box_around(*point, 0.005))]
    return any(step.overlaps(box) for step in steps for box in occupied if box not in own)


def _candidates(point: Point, size: Point) -> Iterator[LabelPlacement]:
    """Yield places around a point, nearest first.

    The ring's distance is that of the label's edge, not of its centre.
    """
    for ring in RINGS:
        for degrees in DIRECTIONS:
            across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            x = point[0] + across * ring + _sign(across) * size[0] / 2
            y = point[1] + up * ring + _sign(up) * size[1] / 2
            yield LabelPlacement(box_around(x, y, size[0] / 2, size[1] / 2), ring > RINGS[1])


def _sign(value: float) -> int:
    return 0 if abs(value) < 1e-9 else int(math.copysign(1, value))
