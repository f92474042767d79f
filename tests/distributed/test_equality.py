"""Two and three processes (gloo) do what one does on the same global batches.

In float64, where a difference is one of method and not of rounding; batch norm is that of
`SharedBatchNorm`, since torch's own is for CUDA alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from longtail import ClassPrior
from longtail.memory import ClassQueue

METHODS = (
    "ce",
    "lade",
    "reweighted",
    "bcl",
    "gml",
    "gml_teacher",
    "gml_unused",
    "gml_sam",
    "paco",
    "proco",
    "supcon_features",
    "pixel_ce",
    "pixel_lade",
    "pixel_bcl",
    "pixel_gml",
    "pixel_gml_teacher",
)
RANKS = [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(scope="session")
def folder(results_of: Callable[[str], Path]) -> Path:
    """Results of every process of every group."""
    return results_of("group")


@pytest.fixture(scope="session")
def found(folder: Path) -> dict[tuple[int, int], Any]:
    return {
        (world, rank): torch.load(folder / f"{world}-{rank}.pt") for world, rank in [(1, 0), *RANKS]
    }


@pytest.mark.parametrize("name", METHODS)
def test_loss_gradients_and_state_are_those_of_one_process(found: Any, name: str) -> None:
    alone = found[1, 0][name]
    assert len(alone["gradients"][0]) > 5
    for world, rank in RANKS:
        ours = found[world, rank][name]
        torch.testing.assert_close(ours["gradients"], alone["gradients"], **CLOSE)
        # The loss of a run is the mean of the processes' losses; most methods have it on each.
        losses = [found[world, r][name]["losses"] for r in range(world)]
        mean = [torch.stack(step).mean() for step in zip(*losses, strict=True)]
        torch.testing.assert_close(mean, alone["losses"])
        for key, value in alone["state"].items():
            # The variance that is remembered is n / (n - 1) times that of the batch: of queue or
            # prototypes, n is larger where every process counts its copy. Nothing ever reads it.
            counted = ("project_key.1.running_var", "project_prototype.1.running")
            counted += ("project.1.running_var",) if name == "pixel_bcl" else ()
            if not key.startswith(counted):
                torch.testing.assert_close(ours["state"][key], value, **CLOSE, msg=key)


@pytest.mark.parametrize("name", ["gml", "gml_teacher", "paco", "pixel_gml", "pixel_gml_teacher"])
def test_queues_are_filled_alike(found: Any, name: str) -> None:
    queue = {k: v for k, v in found[1, 0][name]["state"].items() if k.startswith("queue.")}
    assert (queue["queue.labels"] >= 0).sum() > 12
    for place in RANKS:
        for key, value in queue.items():
            torch.testing.assert_close(found[place][name]["state"][key], value, **CLOSE)


def test_sharpness_aware_gradients_are_others(found: Any) -> None:
    plain, sharp = (found[1, 0][name]["gradients"][0] for name in ("gml", "gml_sam"))
    assert plain.keys() == sharp.keys()
    assert any(not torch.allclose(sharp[name], value) for name, value in plain.items())


def test_a_row_of_gml_did_not_count(found: Any) -> None:
    """Its class has one slot, for its own key; else the mean over such rows would not be tested."""
    alone = found[1, 0]["gml"]
    assert alone["state"]["queue.lengths"][4] == 1
    assert (torch.cat(alone["targets"]) == 4).any()


@pytest.mark.parametrize("name", ["run", "teacher", "first"])
def test_a_run_gives_the_same_model_and_predictions(found: Any, name: str) -> None:
    alone = found[1, 0][name]
    assert (name in alone["files"]) == (name != "run")  # the folder of its stage before
    assert len(alone["index"]) == len(alone["index"].unique()) == 400
    for place in RANKS:
        ours = found[place][name]
        assert torch.equal(ours["index"], alone["index"])
        assert torch.equal(ours["labels"], alone["labels"])
        assert ours["files"] == alone["files"]
        torch.testing.assert_close(ours["logits"], alone["logits"])
        torch.testing.assert_close(ours["loss"], alone["loss"])
        for key, value in alone["state"].items():
            if not key.startswith("project_key.1.running_var"):  # see above
                torch.testing.assert_close(ours["state"][key], value, **CLOSE, msg=key)


def test_a_segmentation_gives_the_same_model_and_metrics(found: Any) -> None:
    alone = found[1, 0]["pixels"]
    assert alone["confusion"].sum() > 1000
    for rank in RANKS:
        ours = found[rank]["pixels"]
        assert torch.equal(ours["confusion"], alone["confusion"])
        assert ours["metrics"] == alone["metrics"]
        assert ours["files"] == alone["files"]
        torch.testing.assert_close(ours["loss"], alone["loss"])
        torch.testing.assert_close(ours["weights"], alone["weights"], **CLOSE)


def test_the_others_say_that_a_process_was_lost(folder: Path) -> None:
    assert torch.load(folder / "lost-statuses.pt") == [0, 0, -9]
    said = [torch.load(folder / f"lost-{rank}.pt") for rank in (0, 1)]
    assert said == ["another process of this run has ended"] * 2


def test_a_fault_of_one_process_is_raised_as_it_is(folder: Path) -> None:
    said = [torch.load(folder / f"fault-{rank}.pt") for rank in (0, 1, 2)]
    assert said[0] == "RuntimeError: a fault of its own"
    assert all("LostProcessError: another process" in text for text in said[1:])


def test_a_run_stopped_twice_goes_on_with_another_number_of_processes(found: Any) -> None:
    alone = found[1, 0]["run"]
    for place in RANKS:
        assert found[place]["resumed"]["exit_codes"] == [143]
    for rank in range(3):
        ours = found[3, rank]["resumed"]
        torch.testing.assert_close(ours["logits"], alone["logits"])
        torch.testing.assert_close(ours["loss"], alone["loss"])
        torch.testing.assert_close(ours["state"], alone["state"], **CLOSE)


@pytest.mark.parametrize("world", [2, 3])
def test_all_processes_end_at_the_fault_of_one(found: Any, world: int) -> None:
    said = [found[world, rank]["faults"] for rank in range(world)]
    assert all(other == said[0] for other in said)
    assert "cannot write" in said[0]["full"]
    assert "No space left on device; there is no checkpoint yet" in said[0]["full"]
    assert "at step 0 of epoch 0, for the images with index" in said[0]["not finite"]
    # Those of the last process alone.
    images = said[0]["not finite"].partition("with index ")[2].partition(" (")[0]
    assert len(images.partition(" and ")[0].split(", ")) == 20
    assert ("and 10 more" in images) == (world == 2)


@pytest.mark.parametrize(("world", "rank"), RANKS)
def test_metrics_are_those_of_all_samples(found: Any, world: int, rank: int) -> None:
    alone = found[1, 0]["metrics"]
    assert not float(alone["BalancedAccuracy"]).is_integer()
    torch.testing.assert_close(found[world, rank]["metrics"], alone, equal_nan=True)


@pytest.mark.parametrize("world", [2, 3])
def test_a_sampler_shares_its_draws_out(found: Any, world: int) -> None:
    alone = found[1, 0]["draws"]
    parts = [found[world, rank]["draws"] for rank in range(world)]
    together = [index for step in zip(*parts, strict=True) for index in step]
    assert together == alone[: len(alone) // world * world]


@pytest.mark.parametrize(("world", "rank"), RANKS)
def test_gathered_rows_and_their_gradient(found: Any, world: int, rank: int) -> None:
    ours = found[world, rank]["gathered"]
    values = torch.tensor([[1.0 + r, 10.0 + r] for r in range(world)], dtype=torch.float64)
    assert torch.equal(ours["every"], values.flatten())
    assert ours["labels"].tolist() == list(range(world))
    # Process r weighted the squares by 1 + r; every process's gradient comes back.
    assert torch.equal(ours["gradient"], 2 * values[rank] * sum(range(1, world + 1)))
    expected = torch.cat([torch.arange(r + 1.0) for r in range(world)])
    assert [t.tolist() for t in ours["ragged"]] == [expected.tolist(), expected.long().tolist()]
    # Batches of different sizes: the queue of one process that is given them in rank order.
    parts = [torch.arange(r + 1.0) for r in range(world)]
    labels = [part.long() % 2 for part in parts]
    index = torch.cat([part + r for r, part in enumerate(labels)])
    queue = ClassQueue(ClassPrior([3, 2]), size=4, width=1, base=1)
    queue.enqueue(torch.cat(parts)[:, None], torch.cat(labels), index)
    for name, value in queue.state_dict().items():
        assert torch.equal(ours["queue"][name], value), name
