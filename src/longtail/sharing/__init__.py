"""Work that the processes of a command share, item by item; the first one gets the results."""

from longtail.sharing.processes import shared, shared_by, shared_by_torchrun, sharing
from longtail.sharing.torchrun import started_by_torchrun

__all__ = ["shared", "shared_by", "shared_by_torchrun", "sharing", "started_by_torchrun"]
