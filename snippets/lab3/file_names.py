"""Names of files that come from others: a name is where a file wants to be written, and not every place will do.

The rules are those of all systems at once, so that what one side accepts does no harm on the other. (Windows: "Naming
Files, Paths, and Namespaces" in its documentation; POSIX: only the slash and the zero byte are special.)
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
import tempfile

from snippets.lab3.text import harmless, same_name_key

MAX_BYTES = 200  # of a name; systems take 255, and we need some for the name it has until it is whole
SEPARATORS = set('/\\:<>"|?*')
_NUMBERED = {f"{device}{number}" for device in ("COM", "LPT") for number in "0123456789¹²³"}
DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", *_NUMBERED}


def why_not_a_file_name(name: str) -> str | None:
    """Why a file of this name is not written, as the end of a sentence for the user; None if it may be."""
    if not name.strip() or name.startswith(".") or name != name.strip() or name.endswith("."):
        return "does not begin or end with a dot or a blank"
    if SEPARATORS & set(name):
        return f"has none of {' '.join(sorted(SEPARATORS))}"
    if harmless(name) != name or "\t" in name or "\ufffd" in name:
        return "has no control characters"
    if name.partition(".")[0].strip().upper() in DEVICES:
        return "is not that of a device"
    if len(name.encode("utf-8", "replace")) > MAX_BYTES:
        return f"has at most {MAX_BYTES} bytes"
    return None


class Landing:
    """A file that is being received into a folder: beside its place until it is whole, and never over another one.

    Raises ValueError if the name will not do, FileExistsError if something has that name or, where letters' case does
    not count, would have; OSError.
    """

    def __init__(self, folder: Path, name: str) -> None:
        if problem := why_not_a_file_name(name):
            raise ValueError(f"a file name {problem}")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / name
        self._check_that_it_is_free()
        handle, beside = tempfile.mkstemp(dir=folder, prefix=".part-")
        self._beside = Path(beside)
        self._file = os.fdopen(handle, "wb", buffering=0)

    def write(self, data: bytes | memoryview) -> None:
        """Raises OSError: the disk is full, a quota or a limit is reached."""
        while data:
            data = data[self._file.write(data) or 0 :]

    def keep(self) -> None:
        """It is whole: give it its name. Raises OSError; FileExistsError if somebody was faster."""
        self._file.close()
        self._check_that_it_is_free()
        if os.name == "nt":
            os.rename(self._beside, self.path)  # fails there if the name is taken; on POSIX it would overwrite
        else:
            os.link(self._beside, self.path)
            os.unlink(self._beside)

    def discard(self) -> None:
        """Leave nothing behind. Harmless after keep()."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._beside)

    def _check_that_it_is_free(self) -> None:
        key = same_name_key(self.path.name)
        if any(same_name_key(each) == key for each in os.listdir(self.path.parent)):
            raise FileExistsError(f"{self.path} exists already")
