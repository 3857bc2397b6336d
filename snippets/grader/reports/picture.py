"""The space-time picture: a line for each process, time to the right, an arrow for each line of text that arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from snippets.grader.reports.events import Delivery, Kept, deliveries, participants, presence
from snippets.grader.reports.result import harmless

LANE, LEFT, STEP, TOP = 44, 110, 14, 30  # pixels
MAX_WIDTH = 4_000


@dataclass
class Picture:
    """What a template draws, in pixels; each a tuple of coordinates and texts."""

    width: float
    height: float
    lanes: list[tuple[str, float, float, float]] = field(default_factory=list)  # name, y, from x, to x
    arrows: list[tuple[float, float, float, float, str, str]] = field(default_factory=list)  # x y x y, kind, text
    ends: list[tuple[float, float, str]] = field(default_factory=list)  # x, y, what
    faults: list[tuple[float, float, float, str]] = field(default_factory=list)  # y, from x, to x, what


def draw(events: list[Kept]) -> Picture | None:
    """The picture of a history; None if nothing happened in it."""
    names = participants(events)
    if not names:
        return None
    lines = deliveries(events)
    scale = _Scale(events)
    place = {name: TOP + LANE * number for number, name in enumerate(names)}
    picture = Picture(scale.width + 40, TOP + LANE * len(names))
    for name, (begin, end) in presence(events).items():
        picture.lanes.append((harmless(name), place[name], scale.x(begin), scale.x(end)))
    for line in lines:
        picture.arrows.append(_arrow(line, place, scale))
    for event in events:
        y = place.get(event["who"])
        if y is not None and event["kind"] in ("signal", "stopped"):
            picture.ends.append((scale.x(event["time"]), y, event.get("signal") or f"ended: {event.get('why')}"))
        elif event["kind"] == "fault":
            y = place.get(event["who"].partition(" > ")[0])
            what = f"{event['who']}: there {event['forward']}, back {event['backward']}"
            if y is not None and {event["forward"], event["backward"]} != {"Fault"}:
                picture.faults.append((y, scale.x(event["time"]), scale.width, what))
    return picture


def _arrow(line: Delivery, place: Mapping[str, float], scale: _Scale) -> tuple[float, float, float, float, str, str]:
    begin, text = scale.x(line.begin), harmless(f"{line.sender} to {line.receiver}: {line.text}", 120)
    if line.end is None:
        half = (place[line.sender] + place[line.receiver]) / 2
        return begin, place[line.sender], begin + STEP, half, "lost", f"lost: {text}"
    kind = "again" if line.again else "arrived"
    return begin, place[line.sender], scale.x(line.end), place[line.receiver], kind, text


class _Scale:
    """Time to pixels: each moment at which something happens is a step from the one before, however long that took."""

    def __init__(self, events: list[Kept]) -> None:
        self._times = sorted({event["time"] for event in events})
        self._step = min(STEP, (MAX_WIDTH - LEFT) / max(1, len(self._times)))
        self._index = {time: number for number, time in enumerate(self._times)}
        self.width = LEFT + self._step * len(self._times)

    def x(self, time: float) -> float:
        return round(LEFT + self._step * self._index.get(time, 0), 1)
