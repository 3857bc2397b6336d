"""Reports are functions of the results: each is valid, and text from a submission stays text in all of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
import csv
import html
import io
import json
from pathlib import Path
import re
import shutil
import subprocess
from typing import Any
from urllib.parse import unquote

import jsonschema
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
    assert "25 checks failed" in lines[-1]


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
    assert [row["name"] for row in rows] == ["'=1+1", "'@SUM(1)"]
    assert rows[0]["points"] == f"{result().points:g}"


def test_joiners_and_combining_marks_stay() -> None:
    assert harmless("👩\u200d💻 e\u0301 नि\u200dk") == "👩\u200d💻 e\u0301 नि\u200dk"


JUDGE = """<body><iframe id=frame style="width:{width}px;height:900px;border:0"></iframe><script>
const frame = document.getElementById("frame");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const focusable = [...page.querySelectorAll("summary, a[href], button, input, [tabindex]")];
  document.body.dataset.found = JSON.stringify({{
    title: page.title, overflow: root.scrollWidth - {width}, injected: page.querySelectorAll("img, iframe, object").length,
    scripts: page.scripts.length, arrows: page.querySelectorAll("svg line.arrived, svg line.lost").length,
    details: page.querySelectorAll("details").length, unreachable: focusable.filter(each => each.tabIndex < 0).length,
    text: getComputedStyle(page.body).color, links: [...page.querySelectorAll("[src], link, [href]")].map(each => each.outerHTML)
      .filter(each => /(src|href)="(https?:|\\/\\/)/.test(each)).length,
    {extra}
  }});
}};
frame.srcdoc = {page};
</script>"""
SORT = """sorted: (() => { const rows = () => [...page.querySelectorAll("#class tbody tr")].map(row => row.cells[0].textContent);
  const before = rows(); page.querySelectorAll("#class th button")[1].click(); page.querySelectorAll("#class th button")[1].click();
  const filter = page.getElementById("filter"); filter.value = "fail:joins"; filter.dispatchEvent(new Event("input"));
  return [before, rows(), page.querySelectorAll("#class tbody tr:not([hidden])").length]; })(),"""


def in_chromium(page: str, width: int, tmp_path: Path, extra: str = "", *words: str) -> dict[str, Any]:
    """What a real browser makes of a page."""
    harness = tmp_path / "harness.html"
    quoted = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\!--")
    harness.write_text(JUDGE.format(width=width, page=quoted, extra=extra), encoding="utf-8")
    switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-sync"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *(f"--{each}" for each in switches.split()),
            "--disable-component-update",
            "--virtual-time-budget=5000",
            f"--user-data-dir={tmp_path / 'profile'}",
            *words,
            "--dump-dom",
            harness.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    values: dict[str, Any] = json.loads(html.unescape(found[1]))
    return values


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("kind", RESULTS)
def test_a_page_in_a_browser(kind: str, width: int, tmp_path: Path) -> None:
    page = ONE["page"](RESULTS[kind](HOSTILE))
    light = in_chromium(page, width, tmp_path)
    assert light["title"] != "pwned"
    assert light["overflow"] <= 0
    assert (light["injected"], light["scripts"], light["links"], light["unreachable"]) == (0, 0, 0, 0)
    if kind == "graded":
        assert light["details"] >= len(CHECKS)
        assert light["arrows"]
    dark = in_chromium(page, width, tmp_path, "", "--force-dark-mode", "--enable-features=WebContentsForceDark")
    assert dark["text"] or light["text"]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [360, 1280])
def test_the_class_page_sorts_and_filters(width: int, tmp_path: Path) -> None:
    best = result("best")
    for outcome in best.outcomes:
        outcome.verdict, outcome.points = PASS, outcome.of
    results = [result("worse"), best, hopeless("hopeless"), result(HOSTILE)]
    page = reports.of_class(results, [("worse", HOSTILE, 0.9)])["index.html"]
    found = in_chromium(page, width, tmp_path, SORT)
    assert found["title"] == "The class"
    assert found["overflow"] <= 0
    assert (found["injected"], found["scripts"], found["links"]) == (0, 1, 0)
    before, after, left = found["sorted"]
    assert before[0].startswith("worse")
    assert after[0].startswith("best")
    assert left == 2
    assert unquote("best.html") in page
