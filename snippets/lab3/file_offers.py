"""Files, the room's half: who offers what to whom, and what became of it. No I/O: the bytes pass elsewhere.

What is new: something that takes long. It is offered first; only if it is accepted do both sides open a connection of
its own for the bytes, and show there the *ticket* that the offer came with. So a chat line never waits behind a file,
and a slow receiver slows nobody but its own sender (FTP had that idea: RFC 959, section 3.2).

    offer -> offered      accept -> accepted, to both      (the bytes)      finish -> finished
                          decline -> declined     at any time, from either side
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from snippets.lab3.private_messages import PrivateRoom
from snippets.lab3.room import Action, Member, Message, RefusedError, Tell, command, text_field
from snippets.lab3.text import harmless

MAX_FILE = 4 << 30  # bytes
MAX_OFFERS = 8  # that one member has open
MAX_TICKET = 64  # characters
MAX_FILE_NAME = 255  # characters

LINES = {
    "accepted": "* {name} takes {file}",
    "declined": "* {file}: {name} {reason}",
    "finished": "* {name} has {file}, whole",
}


@dataclass(frozen=True)
class Cut:
    """Let no more bytes of this file pass."""

    ticket: str


@dataclass
class Offer(Generic[Member]):
    """A file that a member offers to another one. `size` in bytes."""

    ticket: str
    sender: Member
    receiver: Member
    file: str
    size: int
    accepted: bool = False

    def other(self, member: Member) -> Member:
        return self.receiver if member == self.sender else self.sender


class FileRoom(PrivateRoom[Member]):
    """A room whose members can give each other files of at most `max_file` bytes."""

    def __init__(self, default_name: Callable[[Member], str], max_file: int = MAX_FILE) -> None:
        super().__init__(default_name)
        self.max_file = max_file
        self.offers: dict[str, Offer[Member]] = {}

    @command("offer")
    def _offer(self, member: Member, asked: Message) -> list[Action]:
        receiver = self.member_called(text_field(asked, "to"))
        ticket, file, size = text_field(asked, "ticket"), harmless(text_field(asked, "file")), asked.get("size")
        if receiver == member:
            raise RefusedError("a file is for somebody else")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise RefusedError("a file has a size, in bytes")
        if size > self.max_file:
            raise RefusedError(f"a file has at most {self.max_file:,} bytes here; {file[:MAX_FILE_NAME]} has {size:,}")
        if not 16 <= len(ticket) <= MAX_TICKET or ticket in self.offers or not 0 < len(file) <= MAX_FILE_NAME:
            raise RefusedError("an offer has a ticket of its own and a file name")
        if sum(each.sender == member for each in self.offers.values()) >= MAX_OFFERS:
            raise RefusedError(f"you have {MAX_OFFERS} files on offer already")
        self.offers[ticket] = Offer(ticket, member, receiver, file, size)
        offered = {"event": "offered", "name": self.name_of(member), "file": file, "size": size, "ticket": ticket}
        return [Tell(receiver, offered)]

    @command("accept")
    def _accept(self, member: Member, asked: Message) -> list[Action]:
        offer = self._offer_to(member, asked)
        if offer.receiver != member or offer.accepted:
            raise RefusedError("there is no such offer")
        offer.accepted = True  # from now on tickets are good: so both are told
        return [self._tell_other(offer, each, "accepted") for each in (offer.sender, offer.receiver)]

    @command("decline")
    def _decline(self, member: Member, asked: Message) -> list[Action]:
        offer = self._offer_to(member, asked)
        reason = harmless(text_field(asked, "reason"))[:MAX_FILE_NAME] or "does not want it"
        return self._end(offer, member, "declined", reason=reason)

    @command("finish")
    def _finish(self, member: Member, asked: Message) -> list[Action]:
        offer = self._offer_to(member, asked)
        if offer.receiver != member or not offer.accepted:
            raise RefusedError("there is no such offer")
        return self._end(offer, member, "finished")

    def _remove(self, member: Member, event: Message) -> list[Action]:
        actions: list[Action] = []
        for offer in [each for each in self.offers.values() if member in (each.sender, each.receiver)]:
            actions += self._end(offer, member, "declined", reason="is gone")
        return [*actions, *super()._remove(member, event)]

    def _offer_to(self, member: Member, asked: Message) -> Offer[Member]:
        offer = self.offers.get(text_field(asked, "ticket"))
        if offer is None or member not in (offer.sender, offer.receiver):
            raise RefusedError("there is no such offer")
        return offer

    def _end(self, offer: Offer[Member], by: Member, event: str, **more: Any) -> list[Action]:
        del self.offers[offer.ticket]
        return [Cut(offer.ticket), self._tell_other(offer, by, event, **more)]

    def _tell_other(self, offer: Offer[Member], member: Member, event: str, **more: Any) -> Action:
        told = {"event": event, "name": self.name_of(member), "file": offer.file, "ticket": offer.ticket, **more}
        return Tell(offer.other(member), told)
