"""A solution written for the course's toolkit runs unchanged over ours."""

from pathlib import Path

from snippets.lab3.test_run import play

SOLUTION = Path(__file__).parent / "solutions" / "group_chat.py"


def test_a_solution_for_the_courses_toolkit_passes_the_test_run() -> None:
    story, _ = play(str(SOLUTION), port=None, transport="pty", timeout=20.0, quiet=True)
    bad = {step: finding.evidence for step, finding in story.findings.items() if not finding.held}
    assert not bad
