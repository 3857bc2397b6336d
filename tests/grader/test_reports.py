"""Reports are functions of the results: each is valid, and text from a submission stays text in all of them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
import contextlib
import csv
import io
import json
from pathlib import Path
import re
import shutil
from typing import Literal
from urllib.parse import unquote

from axe_playwright_python.sync_playwright import Axe
import jsonschema
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
import pytest
import xmlschema

from snippets.grader import checks as _checks
from snippets.grader import reports
from snippets.grader.grading import CHECKS, FAIL, INCONCLUSIVE, PASS, SKIPPED, Outcome
from snippets.grader.history import History
from snippets.grader.reports.events import deliveries, presence, transcripts
from snippets.grader.reports.picture import draw
from snippets.grader.reports.result import Result, harmless

assert _checks  # importing it fills CHECKS
SCHEMAS = Path(__file__).parents[2] / "resources" / "schemas"
ONE = reports.formats("of_one")
HOSTILE = (
    "</pre></details><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">'\"&{{7*7}}{% x %}"
    "\n::error file=x::pwned\n ##[error]pwned\n```\n# pwned\x1b[2J\x07\u202e\ud800 =1+1 %0A::error::x"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def conversation(text: str = "Hi!") -> History:
    """Three people: one line arrives once, twice and not at all; one of them is killed."""
    history = History()
    for who in ("server", "jing yang", "mobius", "YJ"):
        history.add("started", who, argv=["chat"], pid=1)
    history.add("typed", "YJ", text=f"{text} #00000001", nonce="#00000001")
    history.add("fault", "mobius > 8081", forward="Slicer", backward="Fault")
    history.add("shown", "jing yang", text=f"YJ: {text} #000000")
    history.add("shown", "jing yang", text="01\r\n")
    history.add("shown", "jing yang", text=f"YJ: {text} #00000001\n")
    history.add("signal", "mobius", signal="SIGKILL")
    history.add("typed", "YJ", text="to the rest #00000002", nonce="#00000002")
    history.add("bytes", "mobius > 8081", direction="forward", data="x")
    return history


def result(text: str = "text") -> Result:
    """One with a check of every verdict, and the same text wherever a submission can put one."""
    outcomes = []
    for number, check in enumerate(CHECKS.values()):
        verdict = (PASS, FAIL, SKIPPED, INCONCLUSIVE)[number % 4]
        outcome = Outcome(
            check.id, verdict, check.points * (verdict == PASS), check.points, check.sentence, check.group
        )
        if verdict == FAIL:
            outcome.did, outcome.seen, outcome.expected = "did", [text], check.sentence
            outcome.misconception, outcome.hint, outcome.where = check.misconception, check.hint, f"{text}:12"
            outcome.repeat, outcome.events = text, conversation(text).kept()
        outcomes.append(outcome)
    return Result(text, text, text, outcomes, name=text, same_as=text, seconds=1.5)


def hopeless(text: str = "text") -> Result:
    return Result(text, name=text, reason=text, transcript=text)


RESULTS: dict[str, Callable[[str], Result]] = {"graded": result, "hopeless": hopeless}


def test_who_saw_which_line() -> None:
    events = conversation().kept()
    found = [(each.receiver, each.end is not None, each.again) for each in deliveries(events)]
    assert found == [
        ("jing yang", True, False),
        ("jing yang", True, True),
        ("mobius", False, False),
        ("jing yang", False, False),
    ]
    begin, end = presence(events)["mobius"]
    assert begin < end < presence(events)["YJ"][1]
    assert transcripts(events)["YJ"] == "> Hi! #00000001\n> to the rest #00000002\n"
    assert not [event for event in events if event["kind"] == "bytes"]


def test_the_picture_shows_every_kind_of_thing() -> None:
    picture = draw(conversation().kept())
    assert picture
    assert [name for name, *_ in picture.lanes] == ["server", "jing yang", "mobius", "YJ"]
    assert [kind for *_, kind, _ in picture.arrows] == ["arrived", "again", "lost", "lost"]
    assert [what for *_, what in picture.ends] == ["SIGKILL"]
    assert [what for *_, what in picture.faults] == ["mobius > 8081: there Slicer, back Fault"]
    assert draw([]) is None


@pytest.mark.parametrize("text", ["text", HOSTILE])
@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("name", ONE)
def test_every_format_takes_every_result(name: str, kind: str, text: str) -> None:
    report = ONE[name](RESULTS[kind](text))
    assert isinstance(report, str)
    shown = base64.b64decode(report).decode() if name == "github_result" else report
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    shown.encode("utf-8") if name != "as_json" else json.loads(shown)
    commands = [line for line in shown.splitlines() if line.lstrip().startswith(("::", "##["))]
    assert all(name == "github_annotations" and line.startswith("::error ") for line in commands)


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize(("name", "schema"), [("as_json", "result.json"), ("gradescope", "gradescope.json")])
def test_json_follows_its_schema(name: str, schema: str, kind: str) -> None:
    for text in ("text", HOSTILE):
        values = json.loads(ONE[name](RESULTS[kind](text)))
        jsonschema.validate(values, json.loads((SCHEMAS / schema).read_text(encoding="utf-8")))


@pytest.mark.parametrize("kind", RESULTS)
def test_xml_follows_its_schema(kind: str) -> None:
    schema = xmlschema.XMLSchema(str(SCHEMAS / "junit.xsd"))
    for text in ("text", HOSTILE):
        schema.validate(ONE["junit"](RESULTS[kind](text)))
        schema.validate(reports.of_class([result(text), hopeless(text)], [])["junit.xml"])


def test_json_can_be_read_back() -> None:
    from snippets.grader.reports import as_json

    for one in (result(), hopeless()):
        assert as_json.from_dict(json.loads(ONE["as_json"](one))) == one


def test_classroom_always_has_tests_with_numbers() -> None:
    for one in (result(), hopeless()):
        values = json.loads(base64.b64decode(ONE["github_result"](one)))
        assert values["tests"]
        assert all(isinstance(test["score"], int | float) for test in values["tests"])
    assert values["status"] == "error"


def test_annotations_are_at_most_nine_and_a_count() -> None:
    one = result()
    for outcome in one.outcomes:
        outcome.verdict, outcome.where = FAIL, "chat, really.py:12"
    lines = ONE["github_annotations"](one).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("::error file=chat%2C really.py,line=12,title=starts::")
    assert f"{len(CHECKS)} checks failed" in lines[-1]


def test_what_a_submission_says_stays_in_its_fence() -> None:
    lines = ONE["github_summary"](result("```\n````\n# pwned")).splitlines()
    inside = False
    for line in lines:
        if re.match(r"`{5,}", line):
            inside = not inside
        assert inside or not line.startswith("# ")
    assert not inside


def test_shiviz_clocks_tell_who_had_heard_of_what() -> None:
    lines = ONE["shiviz"](result("Hi!")).splitlines()
    clocks = [json.loads(line.partition(" ")[2]) for line in lines[1::2]]
    hosts = [line.partition(" ")[0] for line in lines[1::2]]
    assert "jing_yang" in hosts
    heard = [clock for host, clock in zip(hosts, clocks, strict=True) if host == "jing_yang"]
    assert "YJ" not in heard[0]
    assert "YJ" in heard[-1]


def test_the_csv_has_no_formulas_and_a_line_a_submission() -> None:
    table = reports.of_class([result("=1+1"), hopeless("@SUM(1)")], [])["grades.csv"]
    rows = list(csv.DictReader(io.StringIO(table)))
    assert (rows[1]["points"], rows[1]["path"]) == ("", "'@SUM(1)")
    assert [row["name"] for row in rows] == ["'=1+1", "'@SUM(1)"]
    assert rows[0]["points"] == f"{result().points:g}"


def test_joiners_and_combining_marks_stay() -> None:
    assert harmless("👩\u200d💻 e\u0301 नि\u200dk") == "👩\u200d💻 e\u0301 नि\u200dk"


LOOKS = """() => ({
  overflow: document.documentElement.scrollWidth - innerWidth,
  injected: document.querySelectorAll("img, iframe, object").length,
  scripts: document.scripts.length,
  arrows: document.querySelectorAll("svg line.arrived, svg line.lost").length,
  details: document.querySelectorAll("details").length,
})"""
FOCUSED = """() => { const at = document.activeElement, style = getComputedStyle(at);
  return [at.tagName, at.id || at.textContent.trim().slice(0, 40), style.outlineStyle !== "none"]; }"""
NAMES = """() => [...document.querySelectorAll('#class tbody tr:not([hidden])')].map(
  row => row.cells[0].querySelector('a').textContent)"""
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextlib.contextmanager
def shown(browser: Browser, text: str, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Iterator[Page]:
    """A page as a real browser shows it, which is told to ask nobody for anything."""
    size: ViewportSize = {"width": width, "height": 900}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(text)
    yield page
    page.close()
    assert not asked


def the_class() -> str:
    best = result("best")
    for outcome in best.outcomes:
        outcome.verdict, outcome.points = PASS, outcome.of
    results = [result("worse"), best, hopeless("hopeless"), result(HOSTILE)]
    return reports.of_class(results, [("worse", HOSTILE, 0.9)])["index.html"]


PAGES: dict[str, Callable[[], str]] = {
    "graded": lambda: ONE["page"](result(HOSTILE)),
    "hopeless": lambda: ONE["page"](hopeless(HOSTILE)),
    "class": the_class,
}


@in_a_browser
@pytest.mark.parametrize("kind", PAGES)
def test_a_page_in_a_browser(kind: str, browser: Browser) -> None:
    for width in (360, 1280):
        with shown(browser, PAGES[kind](), width) as page:
            assert page.title() != "pwned"
            looks = page.evaluate(LOOKS)
        assert looks["overflow"] <= 0
        assert (looks["injected"], looks["scripts"]) == (0, 1 if kind == "class" else 0)
        if kind == "graded":
            assert looks["details"] >= len(CHECKS)
            assert looks["arrows"]


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", PAGES)
def test_a_page_can_be_read_by_everybody(kind: str, scheme: Literal["light", "dark"], browser: Browser) -> None:
    """Contrast, names and structure, by the rules of WCAG that a program can judge."""
    with shown(browser, PAGES[kind](), 360, scheme) as page:
        red = page.evaluate("getComputedStyle(document.documentElement).backgroundColor.match(/[0-9]+/)[0]")
        assert (int(red) < 128) == (scheme == "dark")
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        found = Axe().run(page).response["violations"]
    assert not [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found]


@in_a_browser
@pytest.mark.parametrize("kind", PAGES)
def test_every_control_can_be_reached_by_keyboard_and_shows_that_it_was(kind: str, browser: Browser) -> None:
    with shown(browser, PAGES[kind]()) as page:
        controls = page.locator("summary:visible, a[href]:visible, button:visible, input:visible, [tabindex]:visible")
        expected, reached = controls.count(), set()
        for number in range(expected):
            page.keyboard.press("Tab")
            tag, what, visible = page.evaluate(FOCUSED)
            assert tag != "BODY", f"{number} of {expected}"
            assert visible, (tag, what)
            reached.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
        assert len(reached) == expected


@in_a_browser
def test_a_check_is_opened_and_a_class_sorted_and_filtered_by_keyboard(browser: Browser) -> None:
    with shown(browser, ONE["page"](result())) as page:
        page.keyboard.press("Tab")
        first = page.locator("details").first
        before = first.get_attribute("open")
        page.keyboard.press("Enter")
        assert first.get_attribute("open") != before
    with shown(browser, the_class()) as page:
        while page.evaluate(FOCUSED)[1] != "points":
            page.keyboard.press("Tab")
        assert page.evaluate(NAMES)[0] == "worse"
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert page.evaluate(NAMES)[0] == "best"
        assert page.locator("th").nth(1).get_attribute("aria-sort") == "descending"
        while page.evaluate(FOCUSED)[1] != "filter":
            page.keyboard.press("Shift+Tab")
        page.keyboard.type("fail:joins worse")
        assert page.evaluate(NAMES) == ["worse"]
        assert unquote("best.html") in page.content()
