"""Queues of keys from earlier batches, shared by all processes."""

from longtail.memory.class_queue import ClassQueue, Keys
from longtail.memory.fifo_queue import FifoQueue
from longtail.memory.gather import gather_keys, gather_with_grad, this_process

__all__ = ["ClassQueue", "FifoQueue", "Keys", "gather_keys", "gather_with_grad", "this_process"]
