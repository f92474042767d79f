"""What may end a training early: a loss that is NaN or infinite, or a signal."""

import json
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from longtail.errors import NotFiniteError
from longtail.files import write_text
from longtail.memory import gather_keys
from longtail.training.distributed import on_first
from longtail.training.run import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

NEVER = 2**62  # step of a bad loss that did not occur
REMEDY = "A smaller lr or --precision 32-true often helps"
NAMED = 20  # images of a bad batch that the message names; the file has all


class Monitor:
    """Monitors a training: the loss of every step, and the signals that ask it to stop.

    SIGTERM (of a preemptible machine) and SIGINT (Ctrl-C) are recorded until the next `check`; a
    second Ctrl-C ends the process at once. All processes get the same from `check`, whichever of
    them received the signal or had the bad loss.

    Args:
        fabric: fabric of the run.
        run: the run folder, for `not_finite.json`.

    Attributes:
        signal: number of the signal that the last `check` found, 0 for none.
    """

    def __init__(self, fabric: "Fabric", run: RunFolder) -> None:
        self.fabric, self.run, self.signal = fabric, run, 0
        self._received = 0
        self._before: dict[int, Any] = {}
        self._bad = torch.zeros((), dtype=torch.int64, device=fabric.device)
        self._step, self._index = self._bad + NEVER, self._bad - 1

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # other threads must not set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        # SIGTERM may come twice, from the process group and from the parent.
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])

    def record(self, loss: Tensor, index: Tensor, step: int) -> None:
        """Records on the device whether the loss of a step is finite; nothing waits for it.

        Args:
            loss: scalar.
            index: (B,) index of each image in its source.
            step: number of the step in the epoch.
        """
        bad = ~torch.isfinite(loss.detach())
        first = bad & (self._bad == 0)
        self._step = torch.where(first, step, self._step)
        self._index = torch.where(first, index, self._index)
        self._bad = self._bad + bad

    def check(self, epoch: int) -> bool:
        """Looks at what was recorded since the last check; a GPU's host waits here.

        Returns: whether a signal asks to stop.
        Raises:
            NotFiniteError: when a loss was NaN or infinite; the message names the first such
                batch, and the last checkpoint.
        """
        found = torch.stack([self._bad, self._bad.new_tensor(self._received)])
        bad, self.signal = _joined(self.fabric, found, "max").tolist()
        if bad:
            self._raise(epoch)
        return bool(self.signal)

    def check_weights(self, method: nn.Module, epoch: int) -> None:
        """Refuses to save weights that are NaN or infinite.

        Raises:
            NotFiniteError: names the weights, and the last checkpoint.
        """
        names, weights = zip(*method.named_parameters(), strict=True)
        fine = torch.stack([torch.isfinite(weight.detach()).all() for weight in weights])
        if bad := [name for name, good in zip(names, fine.tolist(), strict=True) if not good]:
            raise NotFiniteError(
                f"weights are NaN or infinite in epoch {epoch}, though the loss is finite: "
                f"{', '.join(bad[:NAMED])}; {self.run.checkpoints.last_in_words()}. {REMEDY}"
            )

    def _raise(self, epoch: int) -> None:
        step = _joined(self.fabric, self._step, "min")
        (index,) = gather_keys(torch.where(self._step == step, self._index, -1))
        images = [image for image in index.tolist() if image >= 0]
        path = self.run.folder / "not_finite.json"
        text = json.dumps({"epoch": epoch, "step": int(step), "index": images}) + "\n"
        on_first(self.fabric, write_text, path, text)
        more = f" and {len(images) - NAMED} more" if len(images) > NAMED else ""
        raise NotFiniteError(
            f"the loss is NaN or infinite at step {int(step)} of epoch {epoch}, for the images "
            f"with index {', '.join(map(str, images[:NAMED]))}{more} (all in {path}); "
            f"{self.run.checkpoints.last_in_words()}. {REMEDY}"
        )

    def leave(self, where: str) -> None:
        """Ends a training that was asked to stop and has saved its state.

        Args:
            where: epoch and step of the checkpoint, for the message.

        Raises:
            KeyboardInterrupt: for SIGINT.
            SystemExit: for SIGTERM, with status 143, as of a process that it ended.
        """
        message = f"stopped by {signal.Signals(self.signal).name}; checkpoint saved at {where}"
        if self.fabric.is_global_zero:
            print(f"longtail: {message}; --resume continues from there", file=sys.stderr)
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise SystemExit(128 + self.signal)


def _joined(fabric: "Fabric", numbers: Tensor, how: str) -> Tensor:
    joined = fabric.all_reduce(numbers.clone(), reduce_op=how)
    assert isinstance(joined, Tensor)
    return joined
