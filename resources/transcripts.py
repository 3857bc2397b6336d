"""Makes the transcripts that the READMEs quote, from real runs: `poetry run python -m resources.transcripts`."""

from __future__ import annotations

from pathlib import Path
import re
import subprocess
import sys

from snippets.grader.driver import Chat, Commands

FOLDER = Path(__file__).parent / "transcripts"
PROGRAM = [sys.executable, "-m", "snippets.lab3.exercise_tcp_group_chat"]


def write(name: str, text: str) -> None:
    (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"wrote {name}")


def test_run() -> None:
    """The whole output of a test run."""
    done = subprocess.run([sys.executable, "-m", "snippets.lab3.test_run"], capture_output=True, text=True, check=True)
    write("test_run.txt", done.stdout)


def group_chat() -> None:
    """What each screen shows in a short conversation, with what was typed behind `>`."""
    commands = Commands([*PROGRAM, "server", "{port}"], [*PROGRAM, "client", "{host}:{port}"])
    with Chat(commands, port=8081) as chat:
        chat.start_server()
        chat.wait_until(chat.is_listening)
        for name in ("mobius", "YJ", "Mobius"):
            who = chat.join(name)
            chat.wait_until(lambda: re.search("Welcome|taken", chat.history.screen(who.name)) is not None)  # noqa: B023
        for name, text in (("Mobius", ""), ("YJ", "Who is the third?"), ("Mobius", "Me!"), ("mobius", "exit")):
            chat.type(chat.participants[name], text)
            mark = {"": "Welcome", "exit": "mobius has left"}.get(text, text)
            chat.wait_until(lambda: mark in chat.history.screen("YJ" if text != "Who is the third?" else "Mobius"), 1)  # noqa: B023
        chat.kill(chat.participants["Mobius"])
        chat.wait_until(lambda: "lost" in chat.history.screen("YJ"))
        write("group_chat.txt", "\n".join(screen(chat, name) for name in chat.participants))


def screen(chat: Chat, name: str) -> str:
    """One participant's screen, in the order in which things happened."""
    lines = [f"--- {name}"]
    for event in chat.history.events:
        if event.who == name and event.kind == "typed":
            lines.append(f"> {event.details['text']}")
        elif event.who == name and event.kind == "shown":
            lines += event.details["text"].splitlines()
        elif event.who == name and event.kind == "signal":
            lines.append(f"({event.details['signal']})")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    test_run()
    group_chat()
