"""The processes started by torchrun, and the connections of the first one to the others."""

import hmac
import os
import secrets
import signal
import socket
from contextlib import suppress

from longtail.sharing.peers import Peer, serve, take_device

ADDRESS = "longtail/sharing"  # key in the store of torchrun


def started_by_torchrun() -> tuple[int, int] | None:
    """Processes per machine, and machines; None without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return local, world // local


def join_torchrun() -> list[Peer] | None:
    """Connects the processes started by torchrun: the others, as seen by the first one.

    Returns: None on each of the others, after serving the first one until it ends.
    """
    from torch.distributed.rendezvous import rendezvous

    store, rank, world = next(rendezvous("env://"))
    take_device(int(os.environ["LOCAL_RANK"]))
    if rank == 0:
        with socket.create_server(("", 0), backlog=world) as server:
            token = secrets.token_hex(16)
            store.set(ADDRESS, f"{server.getsockname()[1]} {token}")
            peers: list[Peer] = []
            while len(peers) < world - 1:
                if peer := _accepted(server, token):
                    peers.append(peer)
            return peers
    port, token = store.get(ADDRESS).decode().split()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (
        suppress(OSError),  # the first process has ended
        socket.create_connection((os.environ["MASTER_ADDR"], int(port))) as connection,
        connection.makefile("rb") as reader,
        connection.makefile("wb") as writer,
    ):
        connection.sendall(token.encode())
        serve(reader, writer)
    return None


def _accepted(server: socket.socket, token: str) -> Peer | None:
    """The process that connects, if it knows the token."""
    connection, _ = server.accept()
    with connection:  # the streams keep it open
        reader, writer = connection.makefile("rb"), connection.makefile("wb")
    known = hmac.compare_digest(reader.read(len(token)), token.encode())
    return Peer("another process of torchrun", reader, writer) if known else None
