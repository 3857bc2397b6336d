"""What a report keeps of a history, and what it reads off it: who was there, which line reached whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import math
from typing import Any

Kept = dict[str, Any]  # {time, kind, who, ...details}; of what was shown: the text, cut, and the nonces in all of it
SERVER = "server"


@dataclass(frozen=True)
class Delivery:
    """A line that somebody should have seen: from its typing to its showing up; end is None if it never did."""

    sender: str
    receiver: str
    text: str
    begin: float
    end: float | None
    again: bool = False  # it had been shown before


def participants(events: Iterable[Kept]) -> list[str]:
    """Who took part, in the order of their start."""
    return list(dict.fromkeys(event["who"] for event in events if event["kind"] == "started"))


def presence(events: list[Kept]) -> dict[str, tuple[float, float]]:
    """From when to when each program ran."""
    last = max((event["time"] for event in events), default=0.0)
    times = dict.fromkeys(participants(events), (0.0, last))
    for event in events:
        who = event["who"]
        if event["kind"] == "started":
            times[who] = (event["time"], last)
        elif _ends(event):
            times[who] = (times[who][0], min(times[who][1], event["time"]))
    return times


def _ends(event: Kept) -> bool:
    return event["kind"] in ("exited", "stopped") or event.get("signal") == "SIGKILL"


def deliveries(events: list[Kept]) -> list[Delivery]:
    """Every line with a nonce, for each who was there when it was typed, and for whoever else saw it."""
    found = []
    there = presence(events)
    gone = {
        event["who"]: event["time"] for event in reversed(events) if _ends(event) or event.get("signal") == "SIGSTOP"
    }
    shown: dict[tuple[str, str], list[float]] = {}
    for event in events:
        for nonce in event.get("nonces", ()):
            shown.setdefault((event["who"], nonce), []).append(event["time"])
    for line in events:
        if line["kind"] != "typed" or not line.get("nonce"):
            continue
        for who, (begin, _) in there.items():
            times = shown.get((who, line["nonce"]), [])
            listens = begin < line["time"] < gone.get(who, math.inf)
            expected = listens and who not in (line["who"], SERVER)
            if who == line["who"] or not (times or expected):
                continue
            found.append(Delivery(line["who"], who, line["text"], line["time"], times[0] if times else None))
            found += [Delivery(line["who"], who, line["text"], line["time"], time, True) for time in times[1:]]
    return found


def transcripts(events: Iterable[Kept]) -> dict[str, str]:
    """What each participant's screen showed, with what was typed there behind `> `."""
    texts: dict[str, str] = {}
    for event in events:
        if event["kind"] in ("shown", "typed"):
            who, before = event["who"], texts.get(event["who"], "")
            text = event["text"]
            if event["kind"] == "typed":
                text = f"{'' if before.endswith(chr(10)) or not before else chr(10)}> {text}\n"
            texts[who] = before + text
    return texts
