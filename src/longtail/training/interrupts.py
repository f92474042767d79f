"""Early ends of training: a loss that is NaN or infinite, or a signal."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from longtail.errors import InputError, NotFiniteError
from longtail.files import read_values, write_text
from longtail.memory import gather_keys
from longtail.methods import Method
from longtail.training.distributed import on_first
from longtail.training.lock import is_locked_here
from longtail.training.own_code import own_code_in
from longtail.training.run import RunFolder, settings_file

if TYPE_CHECKING:
    from lightning_fabric import Fabric

NEVER = 2**62  # step of the bad loss if there is none
REMEDY = "A smaller lr or --precision 32-true often helps"
LARGE = 1e4  # which weights do not reach at a suitable learning rate
LOOKED_AT = 32  # images of a batch whose logits are checked
KEPT = ("model.safetensors", "predictions.parquet", "reference.safetensors", "metrics.json")
NAMED = 20  # images of a bad batch in the message; the file has all


class Monitor:
    """Monitors training: the loss of every step, and signals that ask it to stop.

    SIGTERM (of a preemptible machine) and SIGINT (Ctrl-C) are recorded until the next `check`; a
    second Ctrl-C ends the process at once. `check` gives the same on all processes, whichever of
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
        """Records on the device whether the loss of a step is finite, without synchronisation.

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

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return bool(self._received)

    def check(self, epoch: int) -> bool:
        """Reads what was recorded since the last check; on a GPU, the host waits here.

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
        """Raises an error before NaN or infinite weights are saved.

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

    @torch.no_grad()
    def check_logits(self, method: Method, views: Tensor, epoch: int) -> None:
        """Raises an error before a model with NaN or infinite logits is saved.

        Args:
            method: the method, in training mode before and after.
            views: (V, B, 3 or more, H, W), the last batch; its first view in red, green and blue is
                used.
            epoch: number of the epoch, for the message.

        Raises:
            NotFiniteError: names the cause, the last checkpoint and a remedy.
        """
        method.eval()
        logits: Tensor = method.model(views[0][:LOOKED_AT, :3])
        method.train()
        bad = torch.as_tensor(not are_usable(logits)).to(self.fabric.device, torch.int64)
        if _joined(self.fabric, bad, "max"):
            raise NotFiniteError(
                f"the model gives NaN or infinite logits in epoch {epoch}, though its loss and "
                f"weights are finite{cause(method.model)}; "
                f"{self.run.checkpoints.last_in_words()}. {REMEDY}"
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
        """Ends training that was asked to stop and has saved its state.

        Args:
            where: epoch and step of the checkpoint, for the message.

        Raises:
            KeyboardInterrupt: for SIGINT.
            SystemExit: for SIGTERM, with status 143, like a process that it ended.
        """
        message = f"stopped by {signal.Signals(self.signal).name}; checkpoint saved at {where}"
        if self.fabric.is_global_zero:
            print(f"longtail: {message}; --resume continues from there", file=sys.stderr)
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise SystemExit(128 + self.signal)


def are_usable(logits: Tensor) -> bool:
    """Whether every row of logits gives probabilities; -inf, which rules a class out, is allowed.

    Args:
        logits: (batch, classes, ...).

    Examples:
        >>> inf = torch.inf
        >>> [are_usable(torch.tensor([row])) for row in ([0, -inf], [-inf, -inf], [0, torch.nan])]
        [True, False, False]
    """
    return bool(torch.isfinite(logits.float().amax(1)).all())


def cause(model: nn.Module) -> str:
    """Why a model's logits overflow, for an error message; empty if unknown."""
    largest = max((float(p.detach().abs().max()) for p in model.parameters()), default=0.0)
    return f" (its largest weight is {largest:.2g}: steps were too long)" if largest > LARGE else ""


def refuse_model(run: RunFolder, model: nn.Module, split: str) -> NotFiniteError:
    """Sets aside the checkpoint of a model that gives NaN or infinite logits.

    Returns: the error to raise.
    """
    run.checkpoints.reject_last()
    for name in KEPT:
        (run.folder / name).unlink(missing_ok=True)
    return NotFiniteError(
        f"the trained model of {run.folder} gives NaN or infinite logits for images of the {split} "
        f"split{cause(model)}: it is not kept; {run.checkpoints.last_in_words()}. {REMEDY}"
    )


@contextmanager
def said_where_it_stopped(folder: Path) -> Iterator[None]:
    """Adds to a stop whether there is a checkpoint, and which own code `--resume` must trust.

    Args:
        folder: the run folder; stages in it also have checkpoints, and leave the message to it.

    Raises:
        KeyboardInterrupt: with the message.
    """
    if any(map(is_locked_here, folder.parents)):
        yield
        return
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        started, settings = settings_file(folder), {}
        with suppress(InputError, OSError):  # of a damaged file, which resuming names
            settings = read_values(started) if started else {}
        asked = settings.get("asked", settings)
        own = " ".join(own_code_in(asked if isinstance(asked, dict) else {}))
        trust = f" (with --trust {own})" if own else ""
        if stop.args:  # the message is there already
            if own:
                print(f"longtail: --resume needs --trust {own}", file=sys.stderr)
            raise
        message = "stopped before anything was saved: run the command again"
        if any(folder.rglob("checkpoints/epoch-*.pt")):
            message = f"stopped; --resume{trust} continues from the last checkpoint"
        elif started:
            message = f"stopped before the first checkpoint; --resume{trust} starts again"
        print(f"longtail: {message}", file=sys.stderr)
        raise KeyboardInterrupt(message) from stop


def _joined(fabric: "Fabric", numbers: Tensor, how: str) -> Tensor:
    joined = fabric.all_reduce(numbers.clone(), reduce_op=how)
    assert isinstance(joined, Tensor)
    return joined
