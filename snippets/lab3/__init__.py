"""Chat over TCP: from a wrong echo to a group chat. The toolkit's names, for `from snippets.lab3 import *`.

The last three are standard modules and a class that solutions written for the course's toolkit get from this import.
"""

from datetime import datetime
import socket
import threading

from snippets.lab3.endpoints import address, local_ips
from snippets.lab3.framing import MAX_MESSAGE, FramingError
from snippets.lab3.toolkit import Client, Connection, Server, message
from snippets.lab3.writer import SlowConsumerError

__all__ = [
    "MAX_MESSAGE",
    "Client",
    "Connection",
    "FramingError",
    "Server",
    "SlowConsumerError",
    "address",
    "datetime",
    "local_ips",
    "message",
    "socket",
    "threading",
]
