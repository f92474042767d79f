"""The feature engine: what it computes, in which order, and what happens to files that fail."""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from longtail.data import CentreCrop, Split, UnreadableImagesError
from longtail.features import FeatureCache, extract, fastest, fingerprint, network, outputs
from longtail.features.network import OnnxNetwork, TorchNetwork
from longtail.models import create_backbone

CPU = torch.device("cpu")


class Mean(nn.Module):
    """Mean level of each channel: one can see which image it was."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        """Means (N, 3)."""
        self.images += len(images)
        return images.float().mean((2, 3)) * self.scale


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LONGTAIL_CACHE", str(folder))
    return folder


def make_files(folder: Path, count: int, size: int = 24) -> Split:
    """Images of one colour each: image i has level i."""
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{i}.png") for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("RGB", (size + i % 3, size), (i, i, i)).save(path)
    return Split(torch.zeros(count, dtype=torch.int64), torch.arange(count), None, tuple(paths))


def levels(features: np.ndarray) -> list[float]:
    return [round(float(level), 3) for level in features[:, 0]]


@pytest.mark.parametrize("threads", [1, 3])
def test_outputs_come_in_the_order_of_the_images(tmp_path: Path, threads: int) -> None:
    split = make_files(tmp_path / "a", 40)
    features = extract(TorchNetwork(Mean(), CPU, "32-true"), split, CentreCrop(8), threads=threads)
    assert levels(features) == list(range(40))


def test_images_in_memory() -> None:
    images = torch.arange(30, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    split = Split(torch.zeros(30, dtype=torch.int64), torch.arange(30), images, ("",) * 30)
    network = TorchNetwork(Mean(), CPU, "32-true")
    assert levels(extract(network, split, CentreCrop(8, 1.0))) == list(range(30))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet20"])
def test_onnxruntime_computes_what_torch_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    monkeypatch.setattr(network, "WORTH_EXPORT", 1)
    torch.manual_seed(0)
    backbone = create_backbone(name).eval()
    split = make_files(tmp_path / "a", 10, 32)
    found = fastest(backbone, 32, 10, CPU)
    assert isinstance(found, OnnxNetwork)
    wanted = extract(TorchNetwork(backbone, CPU, "32-true"), split, CentreCrop(32))
    np.testing.assert_allclose(
        extract(found, split, CentreCrop(32), threads=2), wanted, rtol=1e-4, atol=1e-5
    )
    other = pickle.loads(pickle.dumps(found))  # as another process gets it
    np.testing.assert_array_equal(*(extract(net, split, CentreCrop(32)) for net in (found, other)))
    (file,) = (cache_folder / "onnx").iterdir()
    monkeypatch.setattr(network, "export_onnx", None)  # the file is taken, nothing is exported
    assert isinstance(fastest(backbone, 32, 1, CPU), OnnxNetwork)
    monkeypatch.undo()
    monkeypatch.setenv("LONGTAIL_CACHE", str(cache_folder))
    file.write_bytes(file.read_bytes()[:1000])  # a damaged one is exported again
    assert isinstance(fastest(backbone, 32, 1, CPU), OnnxNetwork)
    assert file.stat().st_size > 1000


def test_few_images_are_not_worth_an_export(cache_folder: Path) -> None:
    assert isinstance(fastest(create_backbone("resnet20"), 32, 10, CPU), TorchNetwork)
    assert not cache_folder.exists()


class Unexportable(Mean):
    """What a traced graph computes otherwise."""

    def forward(self, images: Tensor) -> Tensor:
        """Means (N, 3), times the number of images where there are more than two."""
        return super().forward(images) * (len(images) if len(images) > 2 else 1)


def test_a_network_that_onnxruntime_computes_wrongly_stays_in_torch() -> None:
    with pytest.warns(UserWarning, match="onnxruntime cannot run Unexportable .*differ by"):
        assert isinstance(fastest(Unexportable(), 224, 10_000, CPU), TorchNetwork)


def test_unreadable_files_are_all_named_after_the_others_are_done(tmp_path: Path) -> None:
    split = make_files(tmp_path / "a", 12)
    for index in (3, 7):
        Path(split.paths[index]).write_bytes(b"no image")
    model = Mean()
    cache = FeatureCache("mean", "8", 3)
    with pytest.raises(UnreadableImagesError, match="2 of 12") as error:
        extract(TorchNetwork(model, CPU, "32-true"), split, CentreCrop(8), cache=cache)
    assert [path for path, _ in error.value.failures] == [split.paths[i] for i in (3, 7)]
    assert model.images == 10
    for index in (3, 7):
        Image.new("RGB", (9, 9), (index,) * 3).save(split.paths[index])
    features = extract(TorchNetwork(model, CPU, "32-true"), split, CentreCrop(8), cache=cache)
    assert (levels(features), model.images) == (list(range(12)), 12)  # only those two


def test_a_file_that_fails_costs_one_row(tmp_path: Path) -> None:
    split = make_files(tmp_path / "a", 5)
    Path(split.paths[0]).write_bytes(b"")
    network = TorchNetwork(Mean(), CPU, "32-true")
    chunks = list(outputs(network, split, CentreCrop(8), threads=5))
    assert [index for chunk in chunks for index in chunk.indices] == [1, 2, 3, 4]
    assert [f for chunk in chunks for f in chunk.failures] == [(0, "the file is empty")]


def test_cache_knows_a_changed_file(tmp_path: Path) -> None:
    split, model = make_files(tmp_path / "a", 6), Mean()
    net = TorchNetwork(model, CPU, "32-true")
    for count in (6, 6):  # the second time from the cache
        features = extract(net, split, CentreCrop(8), cache=FeatureCache("mean", "8", 3))
        assert levels(features) == list(range(6))
        assert model.images == count
    time.sleep(0.01)  # so that the time of change is another
    Image.new("RGB", (24, 24), (99, 99, 99)).save(split.paths[2])
    features = extract(net, split, CentreCrop(8), cache=FeatureCache("mean", "8", 3))
    assert levels(features) == [0, 1, 99, 3, 4, 5]
    assert model.images == 7


def test_cache_of_other_files_networks_and_sizes_is_not_taken(tmp_path: Path) -> None:
    split, other = make_files(tmp_path / "a", 4), make_files(tmp_path / "b", 4)
    model = Mean()
    net = TorchNetwork(model, CPU, "32-true")
    extract(net, split, CentreCrop(8), cache=FeatureCache("mean", "8", 3))
    extract(net, other, CentreCrop(8), cache=FeatureCache("mean", "8", 3))
    extract(net, split, CentreCrop(9), cache=FeatureCache("mean", "9", 3))
    extract(net, split, CentreCrop(8), cache=FeatureCache("another", "8", 3))
    assert model.images == 16


@pytest.mark.parametrize("damage", ["empty", "other", "half"])
def test_a_damaged_cache_is_made_anew(damage: str, tmp_path: Path) -> None:
    split, model = make_files(tmp_path / "a", 4), Mean()
    net = TorchNetwork(model, CPU, "32-true")
    cache = FeatureCache("mean", "8", 3)
    extract(net, split, CentreCrop(8), cache=cache)
    cache.close()
    content = cache.path.read_bytes()
    left = {"empty": b"", "other": b"no database", "half": content[: len(content) // 2]}[damage]
    cache.path.write_bytes(left)
    for _ in range(2):
        features = extract(net, split, CentreCrop(8), cache=FeatureCache("mean", "8", 3))
        assert levels(features) == list(range(4))
    assert model.images == 8  # the first time computed, the second time found


def test_no_place_for_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = make_files(tmp_path / "a", 4)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="is not used: .*LONGTAIL_CACHE names another folder"):
        cache = FeatureCache("mean", "8", 3)
    net = TorchNetwork(Mean(), CPU, "32-true")
    assert levels(extract(net, split, CentreCrop(8), cache=cache)) == list(range(4))


class Wide(Mean):
    """More features than a page of the database holds."""

    def forward(self, images: Tensor) -> Tensor:
        """Means (N, 3000)."""
        return super().forward(images).repeat(1, 1000)


def test_a_full_disk_costs_the_cache_alone(tmp_path: Path) -> None:
    split = make_files(tmp_path / "a", 4)
    cache = FeatureCache("wide", "8", 3000)
    assert cache._database is not None
    cache._database.execute("PRAGMA max_page_count = 4")  # SQLite then says what it says of a disk
    net = TorchNetwork(Wide(), CPU, "32-true")
    with pytest.warns(UserWarning, match="is not used: database or disk is full"):
        features = extract(net, split, CentreCrop(8), cache=cache)
    assert levels(features) == list(range(4))
    assert not FeatureCache("wide", "8", 3000).load([b"any"])


def test_fingerprint_knows_weights_and_normalisation() -> None:
    torch.manual_seed(0)
    one, other = create_backbone("smallnet"), create_backbone("smallnet")
    assert fingerprint(one) != fingerprint(other)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other)
    other.shift += 0.1  # not in the state dict
    assert fingerprint(one) != fingerprint(other)
