"""The delivery matrix: for each line that was typed and each participant who should have seen it, what became of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
import re

from snippets.grader.history import NONCE_SIZE, Event, History

DELIVERED, LOST, DUPLICATED, REORDERED, CORRUPTED, MISATTRIBUTED, ECHOED = (
    "delivered",
    "lost",
    "duplicated",
    "reordered",
    "corrupted",
    "misattributed",
    "echoed",
)


@dataclass(frozen=True)
class Cell:
    """What became of one line at one receiver. For the sender itself it is ECHOED if its screen shows the line."""

    sender: str
    nonce: str
    text: str
    receiver: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.receiver}: {self.outcome}: {self.sender}'s line {self.text!r}"


def delivery_matrix(
    history: History,
    lines: Iterable[Event],
    receivers: Iterable[str],
    identified_by: dict[str, str] | None = None,
) -> list[Cell]:
    """One cell for each of the `lines` (events of kind "typed") and each receiver; DELIVERED is the good outcome.

    identified_by: what stands for each sender on the screen of others; with None attribution is not looked at.
    A line is known by the nonce it ends with, whatever the format. REORDERED: after a later line of the same sender.
    """
    lines = list(lines)
    cells = []
    for receiver in receivers:
        screen = history.screen(receiver)
        positions: dict[str, list[int]] = {line.details["nonce"]: [] for line in lines}
        for match in re.finditer("|".join(map(re.escape, positions)), screen) if positions else ():
            positions[match.group()].append(match.start())
        latest: dict[str, int] = defaultdict(lambda: -1)
        for line in lines:
            nonce, text = line.details["nonce"], line.details["text"]
            position = min(positions[nonce], default=-1)
            if line.who == receiver:
                outcome = ECHOED if positions[nonce] else DELIVERED
            elif not positions[nonce]:
                outcome = LOST
            elif len(positions[nonce]) > 1:
                outcome = DUPLICATED
            elif position < latest[line.who]:
                outcome = REORDERED
            elif not screen.endswith(text, 0, position + len(nonce)):
                outcome = CORRUPTED
            elif identified_by and not _attributed(screen, position, positions.values(), line.who, identified_by):
                outcome = MISATTRIBUTED
            else:
                outcome = DELIVERED
            latest[line.who] = max(latest[line.who], position)
            cells.append(Cell(line.who, nonce, text, receiver, outcome))
    return cells


def failures(cells: Iterable[Cell], *outcomes: str) -> list[Cell]:
    """The cells that are not DELIVERED; with `outcomes`, only those among them."""
    return [cell for cell in cells if cell.outcome != DELIVERED and (not outcomes or cell.outcome in outcomes)]


def _attributed(
    screen: str, position: int, positions: Iterable[list[int]], sender: str, identified_by: dict[str, str]
) -> bool:
    """Whether the last participant named between the line before this one and this one is its sender.

    If nobody is named there: whether the first one named behind it, on the same row, is.
    """
    others = [each for found in positions for each in found if each != position]
    start = max((each for each in others if each < position), default=-NONCE_SIZE) + NONCE_SIZE
    row_end = screen.find("\n", position)
    end = min((each for each in others if each > position), default=len(screen))
    end = min(end, row_end if row_end >= 0 else len(screen))
    before = {who: screen[start:position].rfind(name) for who, name in identified_by.items()}
    if max(before.values()) >= 0:
        return before[sender] == max(before.values())
    behind = {who: screen[position:end].find(name) for who, name in identified_by.items()}
    return behind[sender] >= 0 and all(place < 0 or place >= behind[sender] for place in behind.values())
