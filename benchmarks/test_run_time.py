"""How long test_run takes, against four bare interpreters that are started together: the least it can take.

poetry run python -m benchmarks.test_run_time [ROUNDS]
"""

import subprocess
import sys

from benchmarks.rounds import compare


def play() -> None:
    subprocess.run([sys.executable, "-m", "snippets.lab3.test_run", "--quiet"], check=True, stdout=subprocess.DEVNULL)


def four_interpreters() -> None:
    for process in [subprocess.Popen([sys.executable, "-c", ""]) for _ in range(4)]:
        process.wait()


def four_interpreters_with_what_a_chat_imports() -> None:
    imports = "import argparse, codecs, json, queue, secrets, selectors, signal, socket, threading, unicodedata"
    for process in [subprocess.Popen([sys.executable, "-c", imports]) for _ in range(4)]:
        process.wait()


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    for other in (four_interpreters, four_interpreters_with_what_a_chat_imports):
        ours, theirs, ratio = compare(play, other, rounds)
        print(f"test_run {ours:.3f} s, {other.__name__} {theirs:.3f} s: {ratio:.2f} times (median of {rounds} rounds)")
