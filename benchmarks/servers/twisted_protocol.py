"""A group chat with Twisted's Int32StringReceiver. Relays whole frames."""

import sys

from twisted.internet import protocol, reactor
from twisted.protocols.basic import Int32StringReceiver

members: set["Member"] = set()


class Member(Int32StringReceiver):
    def connectionMade(self) -> None:  # noqa: N802
        self.transport.setTcpNoDelay(True)
        members.add(self)

    def connectionLost(self, reason: object = None) -> None:  # noqa: N802
        members.discard(self)

    def stringReceived(self, text: bytes) -> None:  # noqa: N802
        for other in members:
            if other is not self:
                other.sendString(text)


factory = protocol.ServerFactory()
factory.protocol = Member
reactor.listenTCP(int(sys.argv[1]), factory, backlog=1024, interface="127.0.0.1")
reactor.run()
