"""Labels beside points so that none covers another, on plain rectangles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RINGS = (
    0.09,
    0.16,
    0.26,
    0.38,
    0.52,
    0.7,
    0.9,
    1.15,
    1.45,
    1.8,
    2.2,
)  # how far from its point a label may lie, nearest first
DIRECTIONS = (
    0,
    180,
    90,
    270,
    45,
    315,
    135,
    225,
    22,
    338,
    158,
    202,
    67,
    293,
    113,
    247,
)  # degrees; right of it is read best
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def middle(self) -> Point:
        """Its centre."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def overlaps(self, other: Box) -> bool:
        """Whether they share more than an edge."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def within(self, other: Box) -> bool:
        """Whether no part of it lies outside."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )


@dataclass(frozen=True)
class Placed:
    """Where a label goes, and whether a line must lead to it."""

    box: Box
    is_led: bool

    def end(self, point: Point) -> Point:
        """Where a line from this point meets the label."""
        return min(max(point[0], self.box.left), self.box.right), min(
            max(point[1], self.box.bottom), self.box.top
        )


def around(x: float, y: float, half_width: float, half_height: float | None = None) -> Box:
    """A rectangle by its middle."""
    half_height = half_width if half_height is None else half_height
    return Box(x - half_width, y - half_height, x + half_width, y + half_height)


def place(
    points: Sequence[Point], sizes: Sequence[Point], taken: Sequence[Box], room: Box
) -> list[Placed] | None:
    """For each point a free place for a label of this (width, height); None where one finds none.

    `taken` are places that no label may cover. The points with the most neighbours choose first: those have least choice.
    """
    occupied, found = list(taken), dict[int, Placed]()
    crowded = sorted(
        range(len(points)),
        key=lambda i: (-sum(math.dist(points[i], other) < 0.6 for other in points), i),
    )
    for index in crowded:
        for candidate in _candidates(points[index], sizes[index]):
            free = candidate.box.within(room) and not any(
                candidate.box.overlaps(box) for box in occupied
            )
            if free and not _is_crossed(points[index], candidate, occupied):
                found[index] = candidate
                occupied.append(candidate.box)
                break
        else:
            return None
    return [found[index] for index in range(len(points))]


def _is_crossed(point: Point, placed: Placed, occupied: Sequence[Box]) -> bool:
    """Whether the line from a label to its point would cross something else, and so seem to lead there."""
    if not placed.is_led:
        return False
    (x, y), (to_x, to_y) = point, placed.end(point)
    on_the_way = [
        around(x + (to_x - x) * part / 16, y + (to_y - y) * part / 16, 0.005) for part in range(17)
    ]
    own = [box for box in occupied if box.overlaps(around(*point, 0.005))]
    return any(step.overlaps(box) for step in on_the_way for box in occupied if box not in own)


def _candidates(point: Point, size: Point) -> Iterator[Placed]:
    """Places around a point, the nearest first; the label's edge, not its middle, is at the ring's distance."""
    for ring in RINGS:
        for degrees in DIRECTIONS:
            across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            x = point[0] + across * ring + _sign(across) * size[0] / 2
            y = point[1] + up * ring + _sign(up) * size[1] / 2
            yield Placed(around(x, y, size[0] / 2, size[1] / 2), ring > RINGS[1])


def _sign(value: float) -> int:
    return 0 if abs(value) < 1e-9 else int(math.copysign(1, value))
