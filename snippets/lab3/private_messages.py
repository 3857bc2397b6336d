"""Private messages: what is said to one member alone, and how to find out who is there.

What is new: not everything is for everybody. The room decides that, as it decides all else; the sender's program asks,
and never learns where the other one is.

    /msg mobius Are you there?            in the chat; nobody but mobius sees it
    /msg "jing yang" And you?             a name with blanks
    /who

Experiment: let the room answer with a Broadcast instead of a Tell. Who notices, and when?
"""

from __future__ import annotations

from typing import Any

from snippets.lab3.room import Action, Member, Message, RefusedError, Room, Tell, command, line_field, text_field
from snippets.lab3.slash_commands import name_and_rest, typed

LINES = {
    "told": "* {name}, to you alone: {text}",  # no name begins with an asterisk: this line cannot be forged
    "here": "* Here: {members}",
}


class PrivateRoom(Room[Member]):
    """A room in which members can also speak to one another."""

    @command("tell")
    def _tell(self, member: Member, asked: Message) -> list[Action]:
        whom, text = self.member_called(text_field(asked, "to")), line_field(asked)
        if not text.strip():
            raise RefusedError("a private message needs a text")
        return [Tell(whom, {"event": "told", "name": self.name_of(member), "text": text})]

    @command("who")
    def _who(self, member: Member, asked: Message) -> list[Action]:
        return [Tell(member, {"event": "here", "members": self.names})]


@typed("msg", "NAME TEXT", "only NAME sees it")
def msg(side: Any, words: str) -> None:
    name, text = name_and_rest(words)
    side.ask({"do": "tell", "to": name, "text": text})


@typed("who", "", "who is here")
def who(side: Any, words: str) -> None:
    side.ask({"do": "who"})
