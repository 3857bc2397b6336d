"""The result of grading one submission: what every report is made from."""

from __future__ import annotations

from dataclasses import dataclass, field

from snippets.grader.grading import INCONCLUSIVE, PASS, SKIPPED, Outcome


@dataclass
class Result:
    """One submission and its outcomes; without outcomes, the reason why it could not be driven."""

    submission: str
    convention: str = ""
    why: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    reason: str = ""
    transcript: str = ""
    seconds: float = 0.0
    failed: bool = False  # the grader itself did
    name: str = ""  # in a class
    same_as: str = ""  # the name of another one that differs in white space and comments only
    fingerprint: str = ""  # of the files and of how they were judged

    @property
    def points(self) -> float:
        return sum(outcome.points for outcome in self.outcomes)

    @property
    def of(self) -> float:
        return sum(outcome.of for outcome in self.outcomes)

    @property
    def unknown(self) -> float:
        """Points on which nothing could be said."""
        return sum(outcome.of for outcome in self.outcomes if outcome.verdict == INCONCLUSIVE)

    @property
    def status(self) -> int:
        """The exit status: 0 full marks, 1 not, 2 could not be graded, 3 an error of the grader."""
        if self.failed:
            return 3
        if not self.outcomes or all(each.verdict in (INCONCLUSIVE, SKIPPED) for each in self.outcomes):
            return 2
        return 0 if all(outcome.verdict == PASS for outcome in self.outcomes) else 1


COMMANDS = ("::", "##[")
JOINERS = "\t\u200c\u200d"  # what scripts and emoji need between characters, though it prints nothing


def harmless(text: str, limit: int = 300) -> str:
    """Text from a submission, made fit to be shown: no control characters, no more than `limit` characters a line.

    What a line begins with is no command for GitHub, which reads the output of its jobs, blanks before it or not.
    """
    lines = (
        "".join(char if char.isprintable() or char in JOINERS else "\ufffd" for char in line)
        for line in text.splitlines()
    )
    lines = (f"| {line}" if line.lstrip().startswith(COMMANDS) else line for line in lines)
    return "\n".join(line if len(line) <= limit else f"{line[:limit]}..." for line in lines)


def story(outcome: Outcome) -> str:
    """What was done and seen, what was expected, and what that often comes from: a few lines of text."""
    where = f" (see {outcome.where})" if outcome.where else ""
    parts = (
        ("did", outcome.did),
        ("saw", "\n".join(outcome.seen)),
        ("expected", outcome.expected),
        ("likely", outcome.misconception and outcome.misconception + where),
        ("hint", outcome.hint),
        ("repeat", outcome.repeat),
    )
    lines = []
    for label, text in parts:
        for number, line in enumerate(harmless(text).splitlines()):
            lines.append(f"{label if not number else '':10}{line}")
    return "\n".join(lines)
