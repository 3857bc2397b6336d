"""JUnit's XML, which continuous integration reads: a suite a submission, a case a check."""

from __future__ import annotations

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from snippets.grader.grading import FAIL, INCONCLUSIVE, SKIPPED
from snippets.grader.reports.result import Result, harmless, story

FILE = "junit.xml"


def of_one(result: Result) -> str:
    """One suite."""
    return _xml([result])


def of_class(results: list[Result], alike: list[tuple[str, str, float]]) -> str:
    """A suite a submission."""
    return _xml(results)


def _xml(results: list[Result]) -> str:
    xml = JUnitXml()
    for result in results:
        name = harmless(result.name or result.submission)
        suite = TestSuite(name)
        for outcome in result.outcomes:
            case = TestCase(outcome.id, name, outcome.seconds)
            kind = {FAIL: Failure, SKIPPED: Skipped, INCONCLUSIVE: Skipped}.get(outcome.verdict)
            if kind:
                entry = kind(outcome.misconception or outcome.verdict)
                entry.text = story(outcome)
                case.result = [entry]
            suite.add_testcase(case)
        if not result.outcomes:
            case = TestCase("can be graded", name)
            case.result = [Error(harmless(result.reason))]
            suite.add_testcase(case)
        xml.add_testsuite(suite)
    text: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return text.decode("utf-8") + "\n"
