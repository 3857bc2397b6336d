"""Run a program that ends when we do, however we end: `python ends_with_us.py PROGRAM WORD...` with a pipe as its input.

Whoever is killed cannot end its children. But its end of a pipe is closed all the same, so a reader at the other end notices:
that is this program.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def main() -> int:
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def end_with_our_parent() -> None:
        while os.read(0, 4096):
            pass
        program.terminate()

    threading.Thread(target=end_with_our_parent, daemon=True).start()
    return program.wait()


if __name__ == "__main__":
    sys.exit(main())
