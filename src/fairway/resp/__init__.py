"""Redis and Valkey as the services' stores speak to them: one shared connection, that follows a cluster.

`Link` is the way to the server that has a store's keys, `Wire` one connection of it, `Address` where a server is.
Named after the protocol (RESP), as the client library has the name of the server.
"""

from fairway.resp.address import CONNECT_S, Address, Faults
from fairway.resp.link import ANSWER_S, Link, Script, leads_elsewhere
from fairway.resp.wire import Argument, Refusal, Wire, pack

__all__ = [
    "ANSWER_S", "CONNECT_S",
    "Address", "Argument", "Faults", "Link", "Refusal", "Script", "Wire",
    "leads_elsewhere", "pack",
]  # fmt: skip
