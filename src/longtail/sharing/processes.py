"""The processes that share the work of a command, and the division of work among them."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from longtail.errors import InputError
from longtail.ranges import check_range
from longtail.sharing.peers import Peer, pickled, start_peer
from longtail.sharing.torchrun import join_torchrun

MOST = 1024  # processes
Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Sequence[Item]], Generator[Result, None, None]]


@dataclass
class Processes:
    """The processes that share the work of a command.

    Args:
        count: number of processes, including this one.
        here: how many of them are on this machine.
        peers: the others; missing ones are started when there is work for them.
    """

    count: int
    here: int
    peers: list[Peer] = field(default_factory=list)

    def results(
        self, work: Work[Item, Result], items: Sequence[Item]
    ) -> Generator[Result, None, None]:
        """See `shared`."""
        count = min(self.count, len(items))
        job = pickled(work)
        while len(self.peers) < count - 1:
            self.peers.append(start_peer(len(self.peers) + 1, torch.get_num_threads()))
        try:
            for rank in range(1, count):
                self.peers[rank - 1].send(job, items[rank::count])
            with closing(work(items[::count])) as own:
                for number in range(len(items)):
                    rank = number % count
                    yield self.peers[rank - 1].receive() if rank else next(own)
        except BaseException:  # including GeneratorExit: unused results are still on their way
            self.close()
            raise

    def close(self) -> None:
        """Ends the other processes."""
        for peer in self.peers:
            peer.close()
        for peer in self.peers:
            peer.join()
        self.peers.clear()


_processes: ContextVar[Processes | None] = ContextVar("_processes", default=None)


def sharing() -> tuple[int, int]:
    """Number of processes that share the work, and how many of them are on this machine."""
    processes = _processes.get()
    return (processes.count, processes.here) if processes else (1, 1)


def shared(work: Work[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
    """The result of each item, in order, by all processes.

    Of P processes, the first works on the items 0, P, 2P and so on, the second on 1, P + 1 and so
    on. Results are passed on as they come, in constant memory: a process sends its next result only
    after the last one was taken.

    Args:
        work: computes the result of each of some items, in order; must be picklable.
        items: the items; with fewer items than processes, some processes have nothing to do.

    Raises:
        LostProcessError: when another process has ended.
        InputError: when `work` cannot be sent to other processes.
        Exception: the error of `work`, in any process, for the first item that fails.
    """
    processes = _processes.get()
    return processes.results(work, items) if processes and len(items) > 1 else work(items)


@contextmanager
def shared_by(devices: int) -> Iterator[None]:
    """Lets several processes on this machine share the work passed to `shared` in the context.

    The threads of this process are divided among them. Within another such context, 1 means the
    existing processes.

    Args:
        devices: number of processes, including this one.

    Raises:
        InputError: when the number is not in [1, 1024].
    """
    check_range("devices", devices, least=1, most=MOST, whole=True)
    if devices == 1:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // devices))
    try:
        with _used(Processes(devices, devices)):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def shared_by_torchrun(devices: int, here: int) -> Iterator[bool]:
    """The same for the processes started by torchrun, each of which calls this function.

    Args:
        devices: requested number of processes per machine; 1: the existing ones.
        here: how many of them are on this machine.

    Yields: whether this is the first process; any other has served it, and has nothing left to do.
    Raises:
        InputError: when another number is requested.
    """
    if devices not in (1, here):
        raise InputError(f"devices must be that of torchrun, {here}, or be left out, got {devices}")
    peers = join_torchrun()
    if peers is None:
        yield False
        return
    with _used(Processes(len(peers) + 1, here, peers)):
        yield True


@contextmanager
def _used(processes: Processes) -> Iterator[None]:
    token = _processes.set(processes)
    try:
        yield
    finally:
        _processes.reset(token)
        processes.close()
