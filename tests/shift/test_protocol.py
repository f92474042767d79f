"""Shifted test sets, list files and LADE's table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtail.errors import InputError
from longtail.prior import ClassPrior
from longtail.shift import (
    adjust,
    dirichlet_test_set,
    protocol_table,
    read_test_list,
    shifted_test_sets,
    write_test_list,
)
from longtail.shift.estimation.estimator import Estimator
from longtail.shift.protocol import COLUMNS, halves
from longtail.shift.table import _folds


def by_hand(labels: list[int], counts: list[int], ratio: float, direction: str) -> list[int]:
    """The protocol of the specification, as plain loops."""
    classes = len(counts)
    ranked = sorted(range(classes), key=lambda c: (-counts[c], c))
    if direction == "backward":
        ranked = ranked[::-1]
    most = len(labels) // classes
    kept: list[int] = []
    for rank, c in enumerate(ranked):
        size = int(most * (1 / ratio) ** (rank / (classes - 1)))
        kept += [i for i, label in enumerate(labels) if label == c][:size]
    return sorted(kept)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=7),
    st.integers(1, 12),
    st.sampled_from([1, 2, 5, 10, 25, 50, 3.7]),
    st.sampled_from(["forward", "backward"]),
    st.randoms(use_true_random=False),
)
def test_lade_protocol(counts: list[int], size: int, ratio: float, direction: str, random) -> None:  # type: ignore[no-untyped-def]
    labels = [c for c in range(len(counts)) for _ in range(size)]
    random.shuffle(labels)
    got = shifted_test_sets(labels, counts, ratio, direction)  # type: ignore[arg-type]
    assert got.dtype == np.int64
    assert got.tolist() == by_hand(labels, counts, ratio, direction)


def test_sizes_on_cifar_100_at_imbalance_50() -> None:
    labels = np.tile(np.arange(100), 100)
    train = [int(500 * 0.02 ** (c / 99)) for c in range(100)]
    sizes = {
        column: len(shifted_test_sets(labels, ClassPrior(train), column[1], column[0]))
        for column in COLUMNS
    }
    assert len(COLUMNS) == 11
    assert sizes["forward", 1] == 10_000
    assert (
        sizes["forward", 50]
        == sizes["backward", 50]
        == sum(int(100 * 0.02 ** (c / 99)) for c in range(100))
    )
    first = shifted_test_sets(labels, train, 50, "forward")
    assert np.bincount(labels[first])[[0, 99]].tolist() == [100, 2]


def test_ties_are_settled_by_class() -> None:
    labels = np.tile(np.arange(3), 4)
    kept = shifted_test_sets(labels, [5, 9, 5], 4, "forward")
    assert np.bincount(labels[kept]).tolist() == [2, 4, 1]
    kept = shifted_test_sets(labels, [5, 9, 5], 4, "backward")
    assert np.bincount(labels[kept]).tolist() == [2, 1, 4]


@pytest.mark.parametrize(
    ("labels", "counts", "ratio", "direction", "message"),
    [
        ([0, 1], [1, 1], 0.5, "forward", "ratio .* must be >= 1 and finite, got 0.5"),
        ([0, 1], [1, 1], float("nan"), "forward", "ratio .* got nan"),
        ([0, 1], [1, 1], 2, "up", "direction .* got 'up'"),
        ([0, 0], [1, 1], 2, "forward", "sample of every class, got none of class 1"),
        ([0, 2], [1, 1], 2, "forward", r"must lie in \[0, 2\)"),
        ([], [1, 1], 2, "forward", "non-empty vector"),
    ],
)
def test_bad_protocol(
    labels: list[int], counts: list[int], ratio: float, direction: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        shifted_test_sets(labels, counts, ratio, direction)  # type: ignore[arg-type]


def test_dirichlet_draws_are_seeded_and_fill_up() -> None:
    labels = np.tile(np.arange(4), 10)
    a, b, c = (dirichlet_test_set(labels, 0.3, 100, seed) for seed in (0, 0, 1))
    assert len(a) == 100
    assert a.tolist() == b.tolist() != c.tolist()
    # A class that is asked for more than it has gives each sample equally often.
    for label in range(4):
        times = np.bincount(a, minlength=40)[labels == label]
        assert times.max() - times.min() <= 1
    mixes = [np.bincount(labels[dirichlet_test_set(labels, 100.0, 4000, s)]) for s in range(3)]
    assert np.abs(np.array(mixes) / 4000 - 0.25).max() < 0.1
    with pytest.raises(ValueError, match="must be above 0, got 0 and 5"):
        dirichlet_test_set(labels, 0, 5, 0)
    with pytest.raises(ValueError, match="must contain every class, got no sample of class 1"):
        dirichlet_test_set([0, 2], 1.0, 5, 0)


def test_list_files(tmp_path: Path) -> None:
    names, path = ["a b.png", "c.png", "d.png"], tmp_path / "list.txt"
    write_test_list(path, [2, 0], names)
    assert path.read_text() == "d.png\na b.png\n"
    assert read_test_list(path, 3, names).tolist() == [2, 0]
    path.write_text("# from the list of the data set\nc.png 7\na b.png 1\n\n2\n")
    assert read_test_list(path, 3, names).tolist() == [1, 0, 2]
    path.write_bytes(b"\xef\xbb\xbfc.png\n")  # as Windows writes it
    assert read_test_list(path, 3, names).tolist() == [1]
    marked = ["#a.png", "b.png"]
    write_test_list(path, [0, 1], marked)
    assert read_test_list(path, 2, marked).tolist() == [0, 1]
    for odd in ("a\nb", " a", "", "twice"):
        with pytest.raises(ValueError, match="names of write_test_list must"):
            write_test_list(path, [0], [odd, "twice"])
    path.write_text("twice\n")
    with pytest.raises(ValueError, match=r"list.txt:1: 'twice' is the name of 2 samples"):
        read_test_list(path, 2, ["twice", "twice"])
    write_test_list(path, np.array([1, 1]))
    assert read_test_list(path, 3).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n3\n", r"list.txt:2: expected an index below 3, got '3'"),
        ("-1\n", r"list.txt:1: expected"),
        ("x.png\n", r"list.txt:1: expected an index below 3, got 'x.png'"),
        ("# nothing\n", r"list.txt: contains no samples"),
    ],
)
def test_bad_list_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_test_list(tmp_path / "list.txt", 3)


def test_a_list_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("Bär.png\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"list.txt must be UTF-8 text"):
        read_test_list(tmp_path / "list.txt", 3)


def test_halves_share_every_class() -> None:
    labels = np.array([1, 0, 1, 0, 1, 0, 0])
    even, odd = halves(labels)
    assert even.tolist() == [0, 1, 4, 5]
    assert odd.tolist() == [2, 3, 6]


def accuracy(logits: Tensor, labels: Tensor) -> Mapping[str, float]:
    return {"accuracy": float((logits.argmax(dim=1) == labels).double().mean())}


def model(size: int) -> tuple[Tensor, Tensor, ClassPrior]:
    """An over-sure long-tailed model on a balanced test set of ten classes."""
    generator = torch.Generator().manual_seed(0)
    means = 1.2 * torch.randn(10, 4, generator=generator)
    labels = torch.arange(10).repeat(size)
    x = means[labels] + torch.randn(len(labels), 4, generator=generator)
    train = ClassPrior([int(1000 * 0.02 ** (c / 9)) for c in range(10)])
    likelihood = -0.5 * torch.cdist(x, means) ** 2
    return 2 * (likelihood + train.log_prior.float()), labels, train


def test_table_shows_what_known_and_estimated_priors_gain() -> None:
    logits, labels, train = model(200)
    table = protocol_table(logits, labels, train, train, accuracy)
    assert [(column.direction, column.ratio) for column in table] == list(COLUMNS)
    for column in table:
        indices = shifted_test_sets(labels, train, column.ratio, column.direction)
        raw, known, estimated = (
            column.scores[name]["accuracy"] for name in ("raw", "known", "estimated")
        )
        assert column.samples == len(indices)
        assert raw == accuracy(logits[indices], labels[indices])["accuracy"]
        exact = adjust(logits[indices], train, column.prior)
        assert known == accuracy(exact, labels[indices])["accuracy"]
        if column.direction == "backward" and column.ratio >= 10:
            assert known - raw > 0.1
            assert estimated - raw > 0.8 * (known - raw)
    lean = table[0]
    assert lean.scores["estimated"]["accuracy"] > lean.scores["raw"]["accuracy"] - 0.01


def test_no_label_of_its_own_half_has_a_part_in_a_prediction() -> None:
    logits, labels, _ = model(31)
    speaks = np.zeros(len(labels), dtype=int)
    for source, applies in _folds(logits, labels, None):
        assert source.indices is not None
        assert torch.equal(source.labels, labels[source.indices])
        assert not applies[source.indices.numpy()].any()
        speaks += applies
    assert (speaks == 1).all()


def test_one_matrix_of_posteriors_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: WeakSet[Estimator] = WeakSet()

    class Watched(Estimator):
        def __init__(self, *args: Any) -> None:
            assert not alive
            super().__init__(*args)
            alive.add(self)

    def score(_: Tensor, __: Tensor) -> dict[str, float]:
        return {"alive": len(alive)}

    monkeypatch.setattr("longtail.shift.table.Estimator", Watched)
    logits, labels, train = model(5)
    (column,) = protocol_table(logits, labels, train, train, score, columns=[("forward", 1.0)])
    assert {figures["alive"] for figures in column.scores.values()} == {0}


def test_validation_split_in_place_of_cross_fitting() -> None:
    logits, labels, train = model(100)
    half = torch.arange(len(labels)) % 200 < 100
    table = protocol_table(
        logits[half],
        labels[half],
        train,
        train,
        accuracy,
        source=(logits[~half], labels[~half]),
        columns=[("backward", 10.0)],
    )
    scores = {name: figures["accuracy"] for name, figures in table[0].scores.items()}
    assert scores["estimated"] - scores["raw"] > 0.8 * (scores["known"] - scores["raw"])


def test_bad_logits_and_classes_without_a_sample() -> None:
    logits, labels, train = model(5)
    broken = logits.clone()
    broken[3, 2] = float("nan")
    with pytest.raises(ValueError, match="logits of protocol_table must be finite, got nan in row"):
        protocol_table(broken, labels, train, train, accuracy)
    with pytest.raises(ValueError, match="sample of every class, got none of class 9"):
        protocol_table(logits[labels != 9], labels[labels != 9], train, train, accuracy)


def test_class_left_out_of_a_small_set() -> None:
    logits, labels, train = model(3)
    table = protocol_table(logits, labels, train, train, accuracy, columns=[("forward", 50.0)])
    assert (table[0].prior == 0).any()
    assert np.isfinite(table[0].scores["known"]["accuracy"])
