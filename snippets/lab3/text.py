"""Text from others: what may be shown, and what may be a name. No I/O."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 32  # characters
LONGEST_SPELLING = 4 * MAX_NAME  # of a name, with all accents apart; normalising what is far longer takes minutes
LOOK_ALIKES = {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC"}  # scripts that share letter shapes

# A terminal obeys what it is sent: C0 and C1 control characters begin escape sequences that can retitle windows, move
# the cursor, or answer for the user (ECMA-48). Line and paragraph separators make one line look like two, and
# bidirectional embeddings, overrides and isolates make it read differently (UAX 9). Surrogates are bytes that were no
# UTF-8. Joiners and combining marks stay: emoji and many languages need them.
_HARMFUL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Printable for Unicode, yet they leave no mark: with them two names could look the same (Default_Ignorable_Code_Point).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def harmless(text: str) -> str:
    """The text with everything that could steer a terminal replaced by U+FFFD."""
    return text if text.isprintable() else _HARMFUL.sub("\ufffd", text)  # nothing that is harmful is printable


def same_name_key(name: str) -> str:
    """Equal for names that a reader would take for one: normalised and case-folded (UAX 15, UTS 39)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


def why_not_a_name(name: str) -> str | None:
    """Why this cannot be somebody's name, as a sentence for the user; None if it can."""
    if not name.strip():
        return "a name needs at least one visible character"
    if len(name) > MAX_NAME:
        return f"a name has at most {MAX_NAME} characters, this one has {len(name)}"
    if not name.isprintable() or _INVISIBLE.search(name):
        return "a name consists of visible characters only"
    if ":" in name or name.startswith("*"):
        return "a name has no colon and no leading asterisk, which mark what the chat itself says"
    scripts = {unicodedata.name(char, "?").split()[0] for char in name if char.isalpha()}
    if len(scripts & LOOK_ALIKES) > 1:
        return f"a name does not mix scripts that look alike ({', '.join(sorted(scripts & LOOK_ALIKES)).lower()})"
    return None
