"""A room that is spread over several servers: who is where, and who may have which name. No I/O, no threads, no clock.

Each server knows all members of all servers, as the others tell it. It decides alone about all but one thing: who gets a
name that two ask for at the same moment, on two servers. About that the *arbiter* decides, the server that has been here
longest (the lowest id: it begins with the time); if it dies, the next one is the arbiter, without anybody's electing it. So
a join takes one question and one answer, however many servers there are.

While servers cannot reach each other, each decides alone. If then a name has been given twice, the member on the older
server keeps it, and the other one gets a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from snippets.lab3.private_messages import PrivateRoom
from snippets.lab3.room import Action, Message, RefusedError, Tell
from snippets.lab3.text import MAX_NAME, same_name_key


@dataclass(eq=False)
class Remote:
    """A member on another server."""

    server: str
    name: str  # what it is called there


@dataclass(frozen=True)
class Claim:
    """Ask the arbiter whether this member may have this name; then call `grant` or `refuse`."""

    member: Any
    name: str
    asked: Message


class ClusterRoom(PrivateRoom[Any]):
    """What one server knows of the room. `server` is its id."""

    def __init__(self, default_name: Callable[[Any], str], server: str) -> None:
        super().__init__(default_name)
        self._server = server
        self._remotes: dict[tuple[str, str], Remote] = {}  # by server, and name there
        self._misnamed: dict[Remote, None] = {}  # those whom we cannot call yet what their server calls them
        self._promised: set[str] = set()  # keys of names that another server may give to a member
        self.arbiter = server

    # -- names ---------------------------------------------------------------------------------------------------------

    def _join(self, member: Any, asked: Message) -> list[Action]:
        if isinstance(member, Remote):
            return super()._join(member, asked)
        name = self._acceptable_name(member, asked)
        if self.arbiter != self._server:
            return [Claim(member, name, asked)]
        if same_name_key(name) in self._promised:
            raise RefusedError(f"the name {name} is taken")
        return super()._join(member, asked)

    def grant(self, claim: Claim) -> list[Action]:
        """The arbiter has nothing against it, or there is none that could be asked."""
        try:
            return super()._join(claim.member, claim.asked)
        except RefusedError as refusal:
            return self.refuse(claim, str(refusal))

    def refuse(self, claim: Claim, reason: str) -> list[Action]:
        return [Tell(claim.member, {"event": "refused", "do": "join", "reason": reason})]

    def promise(self, name: str, server: str) -> str | None:
        """As the arbiter: let another server give this name to a member, until `forget`. Returns the reason if it may not."""
        holder = self._holder_of(name)
        is_its_own = isinstance(holder, Remote) and holder.server == server  # then it knows better than we
        if (holder is not None and not is_its_own) or same_name_key(name) in self._promised:
            return f"the name {name} is taken"
        self._promised.add(same_name_key(name))
        return None

    def forget(self, name: str) -> None:
        """A promise has been kept, or given up."""
        self._promised.discard(same_name_key(name))

    def _is_full_for(self, member: Any, name: str) -> bool:
        return not isinstance(member, Remote) and super()._is_full_for(member, name)

    # -- what other servers tell ---------------------------------------------------------------------------------------

    def members_of(self, server: str) -> list[str]:
        """What those on another server are called there."""
        return [name for of, name in self._remotes if of == server]

    @property
    def own_names(self) -> list[str]:
        """The names of the members of this server."""
        return [name for member, name in self._names.items() if not isinstance(member, Remote)]

    def happened(self, server: str, event: Message) -> list[Action]:
        """Another server tells what one of its members has done. Nonsense changes nothing."""
        try:
            return self._happened(server, event) + self._call_by_their_names()
        except RefusedError:
            return []

    def _happened(self, server: str, event: Message) -> list[Action]:
        kind, name = event.get("event"), str(event.get("name"))
        actions: list[Action] = []
        if kind in ("joined", "renamed"):
            if not name.strip():
                return []
            self.forget(name)
        if kind == "joined":
            actions = self._came(server, name)
        elif kind == "renamed":
            remote = self._remotes.pop((server, str(event.get("old"))), None)
            if remote and (server, name) in self._remotes:  # we know its new name already
                self._misnamed.pop(remote, None)
                actions = self._leave(remote, {})
            elif remote:
                remote.name = name
                self._remotes[server, name] = remote
                actions = self._call(remote)
        elif kind in ("left", "lost"):
            remote = self._remotes.pop((server, name), None)
            if remote:
                self._misnamed.pop(remote, None)
                actions = self._leave(remote, {}) if kind == "left" else self.lost(remote, str(event.get("reason")))
        elif kind == "told" and event.get("server") == self._server:
            actions = self._told(event)
        elif kind == "here":
            actions = self._here(server, event.get("members"))
        return actions

    def _here(self, server: str, members: Any) -> list[Action]:
        """These are all members of a server."""
        names = [str(name) for name in members] if isinstance(members, list) else []
        gone = [name for name in self.members_of(server) if name not in names]
        reason = "it went while its server was out of reach"
        events = [{"event": "lost", "name": name, "reason": reason} for name in gone]
        events += [{"event": "joined", "name": name} for name in names]
        return [action for event in events for action in self.happened(server, event)]

    def all_gone(self, server: str, reason: str | None) -> list[Action]:
        """A whole server has gone. `reason`: None if it said goodbye."""
        event = {"event": "left"} if reason is None else {"event": "lost", "reason": reason}
        return [action for name in self.members_of(server) for action in self.happened(server, {**event, "name": name})]

    def _told(self, event: Message) -> list[Action]:
        whom = self._holder_of(str(event.get("to")))
        told = {"event": "told", "name": event.get("name"), "text": event.get("text")}
        return [] if whom is None or isinstance(whom, Remote) else [Tell(whom, told)]

    def _came(self, server: str, name: str) -> list[Action]:
        if (server, name) in self._remotes:
            return []
        remote = self._remotes[server, name] = Remote(server, name)
        return self._call(remote)

    def _call(self, remote: Remote) -> list[Action]:
        """Call a remote member what its server calls it. Whoever has the name and must not keep it gets another one."""
        actions: list[Action] = []
        holder = self._holder_of(remote.name)
        if holder in self._misnamed and holder is not remote:  # it is called something else anyway
            actions = super()._join(holder, {"name": self._free(remote.name)})
        elif holder is not None and holder is not remote:
            if isinstance(holder, Remote) or remote.server > self._server:
                self._misnamed[remote] = None
                return super()._join(remote, {"name": self._free(remote.name)}) if self.name_of(remote) is None else []
            why = f"somebody on an older server is called {remote.name}, too"
            actions = [Tell(holder, {"event": "notice", "text": f"You get another name: {why}"})]
            actions += super()._join(holder, {"name": self._free(remote.name)})
        self._misnamed.pop(remote, None)
        return [*actions, *super()._join(remote, {"name": remote.name})]

    def _call_by_their_names(self) -> list[Action]:
        actions: list[Action] = []
        # One at a time, for each may make another name free.
        while ready := next((each for each in self._misnamed if not self._must_wait(each)), None):
            actions += self._call(ready)
        return actions

    def _must_wait(self, remote: Remote) -> bool:
        """Whether its name is that of somebody else, as far as we know."""
        return self.is_taken(remote.name, remote) and self._holder_of(remote.name) not in self._misnamed

    def _free(self, name: str) -> str:
        return next(each for n in count(2) if not self.is_taken(each := f"{name[: MAX_NAME - 6]} {n}", None))
