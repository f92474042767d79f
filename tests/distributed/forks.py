"""Groups of forked processes, for scripts that import everything once."""

import os
import socket
import traceback
from collections.abc import Callable


def in_group(world: int, action: Callable[[int], object]) -> list[int]:
    """Statuses of so many processes, each of which acts with its rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_PORT": str(port)}
            try:
                action(rank)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
