"""The mechanism of grading: checks and their registry, verdicts, dependencies. What is checked is in checks.py.

A check is a function with `@check`; its docstring is the sentence that the student reads, its name the id. It returns
facts for the checks that need it, or raises Fails (with the evidence) or CannotObserve (with the reason).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import time
from typing import Any, TypeVar

PASS, FAIL, SKIPPED, INCONCLUSIVE = "pass", "fail", "skipped", "inconclusive"
ATTEMPTS = 3

Facts = dict[str, Any]


class Fails(Exception):  # noqa: N818 - a verdict, not an error
    """What the check asserts does not hold. `seen` is the evidence, a line each; `signs` serve the diagnosis."""

    def __init__(self, *seen: str, signs: Sequence[str] = ()) -> None:
        super().__init__("\n".join(seen))
        self.seen = [line for line in seen if line]
        self.signs = list(signs)


class CannotObserve(Exception):  # noqa: N818 - a verdict, not an error
    """Nothing can be said about what the check asserts; the text is the reason."""


@dataclass(frozen=True)
class Check:
    """One requirement of the rubric."""

    id: str
    points: int
    needs: tuple[str, ...]
    sentence: str
    did: str
    misconception: str
    hint: str
    group: str
    run: Callable[[Any], Facts | None]


@dataclass
class Outcome:
    """What became of one check."""

    id: str
    verdict: str
    points: float
    of: float
    sentence: str
    group: str = ""
    did: str = ""
    seen: list[str] = field(default_factory=list)
    expected: str = ""
    misconception: str = ""
    where: str = ""
    hint: str = ""
    repeat: str = ""
    seconds: float = 0.0
    attempts: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)  # of the last chat, see History.kept
    signs: list[str] = field(default_factory=list)  # of the failure, for the diagnosis


CHECKS: dict[str, Check] = {}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def check(
    points: int, needs: str = "", *, group: str, did: str, misconception: str, hint: str
) -> Callable[[_Function], _Function]:
    """Make a function a check. needs: the ids of those that must have passed before it, with blanks between."""

    def register(function: _Function) -> _Function:
        id = function.__name__.replace("_", "-")
        sentence = " ".join((function.__doc__ or "").split())
        CHECKS[id] = Check(id, points, tuple(needs.split()), sentence, did, misconception, hint, group, function)
        return function

    return register


@dataclass
class Attempts:
    """The runs of one check that decide its verdict: once if it passes, else up to ATTEMPTS times from a fresh start."""

    verdicts: list[str] = field(default_factory=list)
    failure: Fails | None = None
    reason: str = ""
    facts: Facts = field(default_factory=dict)

    def make(self, run: Callable[[], Facts | None]) -> None:
        """Run the check until the verdict stands."""
        while not self._stands():
            try:
                self.facts = run() or {}
                self.verdicts.append(PASS)
            except Fails as failure:
                self.failure = failure
                self.verdicts.append(FAIL)
            except CannotObserve as reason:
                self.reason = str(reason)
                self.verdicts.append(INCONCLUSIVE)

    @property
    def verdict(self) -> str:
        """PASS if it never failed and passed once, FAIL if at least two of three fail, else INCONCLUSIVE."""
        if self.verdicts.count(FAIL) >= 2:
            return FAIL
        return PASS if PASS in self.verdicts and FAIL not in self.verdicts else INCONCLUSIVE

    def _stands(self) -> bool:
        enough = len(self.verdicts) >= ATTEMPTS or self.verdicts.count(FAIL) >= 2
        return self.verdict == PASS or enough or self.verdicts.count(INCONCLUSIVE) >= 2


def judge(the_check: Check, stage: Any, points: float) -> tuple[Outcome, Facts]:
    """Run one check, repeated where it fails; its outcome and the facts for those that need it."""
    began = time.monotonic()
    attempts = Attempts()
    attempts.make(lambda: the_check.run(stage))
    outcome = Outcome(the_check.id, attempts.verdict, 0, points, the_check.sentence, the_check.group)
    outcome.seconds = round(time.monotonic() - began, 3)
    outcome.attempts = attempts.verdicts
    if outcome.verdict == PASS:
        outcome.points = points
    elif outcome.verdict == FAIL and attempts.failure:
        outcome.did, outcome.expected, outcome.hint = the_check.did, the_check.sentence, the_check.hint
        outcome.misconception = the_check.misconception
        outcome.seen = attempts.failure.seen
        outcome.signs = list(dict.fromkeys(attempts.failure.signs))
    else:
        flaky = f"flaky: {', then '.join(attempts.verdicts)}" if FAIL in attempts.verdicts else ""
        outcome.seen = list(
            filter(None, [flaky, attempts.reason, *(attempts.failure.seen if attempts.failure else [])])
        )
    return outcome, attempts.facts


def skipped(the_check: Check, because: Sequence[str], points: float, judged: bool = True) -> Outcome:
    """The outcome of a check that needs others that did not pass; inconclusive if those could not be judged either."""
    verdict = SKIPPED if judged else INCONCLUSIVE
    outcome = Outcome(the_check.id, verdict, 0, points, the_check.sentence, the_check.group)
    outcome.seen = [f"needs {', '.join(because)}, which did not pass"]
    return outcome


def not_observed(the_check: Check, reason: str, points: float) -> Outcome:
    """The outcome of a check that could not be run to its end."""
    outcome = Outcome(the_check.id, INCONCLUSIVE, 0, points, the_check.sentence, the_check.group)
    outcome.seen = [reason]
    return outcome
