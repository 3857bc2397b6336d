"""The shortcut for a whole page of lines. You need not read this to understand the chat. No I/O.

A line goes through the room like everything else: JSON is read, the text is looked at, an event is made, and JSON is written.
Nobody notices the few microseconds which that takes, unless ten members paste page after page: then it is nearly all that
the server does. But most lines are *plain*, printable ASCII without a quotation mark or a backslash, and what becomes of a
plain line is the same text behind another beginning. So no JSON has to be read or written:

    {"do": "say", "text": "Hi!"}    ->    {"event": "said", "name": "mobius", "text": "Hi!"}

The room takes this way for a page in which all lines are plain, and the long one for all else. Both lead to the same place
(tests/lab3/test_plain_lines.py); `python -m benchmarks.chat_servers` shows what it is worth.
"""

from __future__ import annotations

PLAIN = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))  # stands for itself in JSON, and is harmless on a screen
END = b'"}'


def rewrite(messages: list[bytes], asked: bytes, answer: bytes, longest: int) -> list[bytes]:
    """Each message, which must be `asked` with a plain text of at most `longest` bytes in it, as `answer` with that text.

    Both end with an empty string and the brace behind it, and there the text goes. Empty if one of the messages is anything
    else, or its text is blank.
    """
    head = asked.removesuffix(END)
    page = b"".join(messages)
    texts = page[len(head) : -len(END)].split(END + head)
    if not page.startswith(head) or not page.endswith(END):
        return []
    if [len(asked) + len(text) for text in texts] != [len(each) for each in messages]:
        return []
    if b"".join(texts).translate(None, PLAIN) or not all(map(bytes.strip, texts)) or max(map(len, texts)) > longest:
        return []
    new_head = answer.removesuffix(END)
    return [new_head + text + END for text in texts]
