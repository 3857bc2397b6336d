"""Grading a class: everything once, nothing lost, the same again."""

from __future__ import annotations

from collections.abc import Iterator
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import pexpect
import psutil
import pytest

from snippets.grader import course, variants
from snippets.grader.alike import essence, fingerprint, suspicious
from snippets.grader.reports.result import Result
from snippets.grader.rubric import BadRequest

ROOT = Path(__file__).parents[2]
GOOD = "from snippets.lab3.exercise_tcp_group_chat import main  # 'server' 'client'\nmain()\n"
QUICK = ("--only", "joins")


def words(*more: object) -> list[str]:
    return [sys.executable, "-m", "snippets.grader", *map(str, more)]


def grader(*more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(*more), cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def results(output: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (output / "results").glob("*.json")}


@pytest.fixture
def students(tmp_path: Path) -> Path:
    """Three good ones, of which two are the same; one that cannot be driven."""
    folder = tmp_path / "class"
    for name, text in (
        ("anna", GOOD),
        ("berta", f"# {GOOD}\n{GOOD.replace('main()', 'main()  # by me')}"),
        ("carl", GOOD.replace("main", "exercise_main").replace("import exercise_main", "import main as exercise_main")),
        ("dora", "import socket\nprint('hello')\n"),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "chat.py").write_text(text, encoding="utf-8")
    (folder / "berta" / "chat.py").write_text(f"# mine\n{GOOD}", encoding="utf-8")
    return folder


def test_a_class_is_graded_into_a_folder(students: Path, tmp_path: Path) -> None:
    output = tmp_path / "grades"
    done = grader(students, "--output", output, *QUICK)
    assert done.returncode == 2, done.stdout + done.stderr  # one could not be graded
    found = results(output)
    assert {name: each["status"] for name, each in found.items()} == {"anna": 0, "berta": 0, "carl": 0, "dora": 2}
    assert found["berta"]["same_as"] == "anna"
    for name in ("index.html", "grades.csv", "junit.xml", *(f"{name}.html" for name in found)):
        assert (output / name).stat().st_size, name
    assert not list((output / "results").glob("*.part"))

    again = grader(students, "--output", output, *QUICK)
    assert "4 of 4 are graded already" in again.stdout
    changed = students / "carl" / "chat.py"
    changed.write_text(changed.read_text(encoding="utf-8") + "\nx = 1\n", encoding="utf-8")
    assert "3 of 4 are graded already" in grader(students, "--output", output, *QUICK).stdout
    assert "graded already" not in grader(students, "--output", output, "--only", "starts").stdout  # judged otherwise
    assert "graded already" not in grader(students, "--output", output, "--only", "starts", "--fresh").stdout


def test_two_runs_give_the_same_verdicts_also_with_four_times_the_jobs(students: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    grader(students, "--output", one, *QUICK)
    grader(students, "--output", other, *QUICK, "--jobs", 4 * (os.cpu_count() or 1))
    same = grader("--compare", one, other)
    assert (same.returncode, same.stdout) == (0, "no verdict differs\n")
    path = other / "results" / "anna.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"verdict": "pass"', '"verdict": "fail"', 1), encoding="utf-8"
    )
    (other / "results" / "dora.json").unlink()
    differ = grader("--compare", one, other)
    assert (differ.returncode, differ.stdout.splitlines()) == (
        1,
        ["anna: starts: pass, now fail", "dora: only in the old one"],
    )
    assert grader("--compare", one, tmp_path).returncode == 2


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(students: Path, tmp_path: Path) -> None:
    output = tmp_path / "grades"
    (students / "zoe").mkdir()
    (students / "zoe" / "chat.py").write_text("import socket\nwhile True: input()\n", encoding="utf-8")
    run = subprocess.Popen(
        words(students, "--output", output, *QUICK, "--jobs", 1),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout
    first = next(line for line in run.stdout if " of 5: " in line)
    family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert (run.returncode, "Interrupted" in errors) == (2, True), errors
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    done = len(results(output))
    assert first.startswith("1 of 5: anna: 8 of 8")
    assert 1 <= done < 5
    assert (output / "index.html").exists()
    assert f"{done} of 5 are graded already" in grader(students, "--output", output, *QUICK).stdout
    assert len(results(output)) == 5


def test_the_bar_says_who_is_at_what_and_how_long_it_will_take(students: Path, tmp_path: Path) -> None:
    run = pexpect.spawn(
        sys.executable,
        words(students, "--output", tmp_path / "grades", *QUICK)[1:],
        cwd=str(ROOT),
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        dimensions=(30, 100),
        timeout=100,
        encoding="utf-8",
    )
    run.expect(r"at once [\s\S]*?0/4[\s\S]*?  anna: (how is it started|\d of 2 checks)")
    run.expect(r"[1-4]/4[\s\S]*?\d:\d\d:\d\d")
    run.expect("Pages for each and for the class")
    run.expect(pexpect.EOF)
    run.close()
    assert run.exitstatus == 2


def test_a_submission_whose_worker_is_killed_is_graded_again(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "chat.py").write_text(GOOD + f"# {name}\nNAME = '{name}'\n", encoding="utf-8")
    output = tmp_path / "grades"
    run = subprocess.Popen(
        words(tmp_path / "one", tmp_path / "other", "--output", output, "--only", "split"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    kill_a_worker(psutil.Process(run.pid))
    printed, _ = run.communicate(timeout=100)
    assert run.returncode == 0, printed
    assert {each["points"] for each in results(output).values()} == {24}


def kill_a_worker(parent: psutil.Process) -> None:
    """Kill the first process that grades, as soon as there is one."""
    while parent.is_running():
        for child in parent.children(recursive=True):
            try:
                if "snippets.grader.single" in child.cmdline() and child.parent():
                    worker = child
                    while (
                        (above := worker.parent())
                        and above.pid != parent.pid
                        and "spawn_main" not in str(worker.cmdline())
                    ):
                        worker = above
                    worker.kill()
                    return
            except psutil.Error:
                pass


CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a Dask scheduler with two worker processes."""
    pytest.importorskip("distributed")
    program = tmp_path / "cluster.py"
    program.write_text(CLUSTER, encoding="utf-8")
    cluster = subprocess.Popen(
        [sys.executable, program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
    )
    try:
        assert cluster.stdout
        yield cluster.stdout.readline().strip(), cluster
    finally:
        cluster.communicate(timeout=60)


def test_a_class_on_a_cluster_also_when_a_worker_dies(
    students: Path, scheduler: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    address, cluster = scheduler
    output = tmp_path / "grades"
    run = subprocess.Popen(
        words(students, "--output", output, *QUICK, "--scheduler", address), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    kill_a_worker(psutil.Process(cluster.pid))
    printed, _ = run.communicate(timeout=100)
    assert {name: each["status"] for name, each in results(output).items()} == {
        "anna": 0,
        "berta": 0,
        "carl": 0,
        "dora": 2,
    }, printed


def test_a_csv_names_the_submissions(students: Path, tmp_path: Path) -> None:
    table = tmp_path / "class.csv"
    table.write_text("name,path\nA/1,class/anna\nA 1,class/anna\n,class/carl\n", encoding="utf-8")
    expected = [
        ("A_1-a5b3d2", tmp_path / "class/anna"),
        ("A 1", tmp_path / "class/anna"),
        ("carl", tmp_path / "class/carl"),
    ]
    assert [(each.name, Path(each.path)) for each in course.entries([str(table)])] == expected
    table.write_text(table.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")
    assert [(each.name, Path(each.path)) for each in course.entries([str(table)])] == expected
    for wrong, reason in (
        ("who\nanna\n", "column `path`"),
        ("path\n", "a line for each"),
        ("path,name\n,x\n", "line 2"),
    ):
        table.write_text(wrong, encoding="utf-8")
        with pytest.raises(BadRequest, match=reason):
            course.entries([str(table)])
    table.write_bytes("path\nMöbius\n".encode("latin-1"))
    with pytest.raises(BadRequest, match="not UTF-8"):
        course.entries([str(table)])


def test_names_do_not_depend_on_who_else_is_there_and_take_no_page_of_ours(tmp_path: Path) -> None:
    for name in ("a:b", "a=b", "index", "anna.py", "late.zip", "notes.txt", "__MACOSX"):
        (tmp_path / name).touch() if "." in name else (tmp_path / name).mkdir()
    names = {Path(each.path).name: each.name for each in course.entries([str(tmp_path)], folders_are_classes=True)}
    assert names.keys() == {"a:b", "a=b", "index", "anna.py", "late.zip"}
    assert names["a:b"] != names["a=b"]
    assert names["index"] != "index"
    (tmp_path / "a:b").rmdir()
    again = {Path(each.path).name: each.name for each in course.entries([str(tmp_path)], folders_are_classes=True)}
    assert again["a=b"] == names["a=b"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["students", "--report", "page=x"], "for one submission"),
        (["students/anna", "--output", "x"], "for a class"),
        ([""], "PATH is empty"),
        (["students", "--output", ""], "folder of its own"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    more: list[str], reason: str, students: Path, tmp_path: Path
) -> None:
    done = grader(*(word.replace("students", str(students)) for word in more))
    assert (done.returncode, reason in done.stderr) == (2, True), done.stderr


def test_a_class_of_files_is_one_if_it_is_said_so(tmp_path: Path) -> None:
    for name in ("anna", "berta"):
        (tmp_path / "class").mkdir(exist_ok=True)
        (tmp_path / "class" / f"{name}.py").write_text(GOOD + f"NAME = '{name}'\n", encoding="utf-8")
    done = grader(tmp_path / "class", "--class", "--output", tmp_path / "grades", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: each["points"] for name, each in results(tmp_path / "grades").items()} == {
        "anna.py": 8,
        "berta.py": 8,
    }


def test_a_folder_of_submissions_is_no_submission(students: Path, tmp_path: Path) -> None:
    assert course.is_course(students)
    assert not course.is_course(students / "anna")
    assert not course.is_course(tmp_path / "nowhere")
    assert not course.is_course(variants.make({"name": "a checkout"}, tmp_path / "checkout"))
    assert [each.name for each in course.entries([str(students), str(students / "anna")])] == [
        "anna",
        "berta",
        "carl",
        "dora",
        "anna (2)",
    ]


def test_what_makes_two_submissions_the_same(students: Path) -> None:
    anna, berta, carl = (students / name for name in ("anna", "berta", "carl"))
    assert essence(anna) == essence(berta) != essence(carl)
    assert fingerprint(anna) != fingerprint(berta)
    assert not suspicious({"anna": anna, "carl": carl})  # too little code to say anything


def test_suspicious_pairs_are_found_whatever_the_names(tmp_path: Path) -> None:
    text = (ROOT / "snippets" / "lab3" / "room.py").read_text(encoding="utf-8")
    other = (ROOT / "snippets" / "lab3" / "writer.py").read_text(encoding="utf-8")
    for name, source in (
        ("one", text),
        ("copied", text.replace("member", "teilnehmer").replace("room", "raum").replace('"""', "'''")),
        ("own", other),
    ):
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    pairs = suspicious({name: tmp_path / f"{name}.py" for name in ("one", "copied", "own")})
    assert [(one, two) for one, two, _ in pairs] == [("one", "copied")]


def test_an_older_result_counts_only_as_a_whole(tmp_path: Path) -> None:
    entry = course.Entry("anna", str(tmp_path))
    course.save(tmp_path, entry, Result("x", name="anna", reason="because"))
    assert [each.reason for each in course.load(tmp_path)] == ["because"]
    course.result_file(tmp_path, entry).write_text('{"version":', encoding="utf-8")
    with pytest.raises(BadRequest, match="not a result"):
        course.load(tmp_path)
