import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets.cifar as tv

from longtail.data import BUILT_IN, DataConfig, load


def test_digits_parts():
    data = load(DataConfig("digits-lt"))
    assert data.name == "digits-lt"
    assert torch.bincount(data.test.labels).tolist() == [40] * 10
    assert data.prior.counts[0] == 134
    assert data.prior.counts[-1] == 134 // 30
    assert [len(group) for group in data.prior.groups().values()] == [1, 5, 4]
    assert not set(data.train.index.tolist()) & set(data.test.index.tolist())
    assert data.train.images.dtype == torch.uint8
    assert data.train.images.shape[1:] == (3, 8, 8)
    assert data.train.images.max() == 255
    assert data.train.paths[0] == f"digits/{data.train.index[0]}"


def test_digits_images_belong_to_their_labels():
    from sklearn.datasets import load_digits

    raw = load_digits()
    test = load(DataConfig("digits-lt")).test
    assert test.labels.tolist() == raw.target[test.index].tolist()
    np.testing.assert_array_equal(
        test.images[:, 1].numpy(), np.rint(raw.images[test.index] * 255 / 16)
    )


def test_digits_settings():
    data = load(DataConfig("digits-lt", imbalance=2, image_size=16, val_fraction=0.1, seed=3))
    assert data.train.images.shape[1:] == (3, 16, 16)
    assert {13, 7} <= set(torch.bincount(data.val.labels).tolist())
    first = load(DataConfig("digits-lt"))
    assert not torch.equal(data.test.index, first.test.index)
    assert torch.equal(load(DataConfig("digits-lt")).train.index, first.train.index)
    with pytest.raises(ValueError, match="imbalance must be at most the 134 images"):
        load(DataConfig("digits-lt", imbalance=200))


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in the form of CIFAR-10 with 20 training images a class; checksums are not asked."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.RandomState(0)
    for name, count in (("data_batch_1", 200), ("test_batch", 30)):
        entry = {
            "data": generator.randint(0, 256, (count, 3072), np.uint8),
            "labels": (np.arange(count) % 10).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(entry))
    meta = {"label_names": list("abcdefghij")}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(tv.CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(tv.CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(tv.CIFAR10, "meta", {**tv.CIFAR10.meta, "md5": None})
    return tmp_path


def test_cifar(cifar10):
    data = load(DataConfig("cifar10-lt", root=str(cifar10), imbalance=10))
    assert data.name == "cifar10-lt"
    assert data.class_names == tuple("abcdefghij")
    assert data.prior.counts.tolist() == [20, 15, 11, 9, 7, 5, 4, 3, 2, 2]
    assert (data.train.index % 10 == data.train.labels).all()
    assert data.train.paths[0] == f"cifar10/train/{data.train.index[0]}"
    assert len(data.test) == 30
    raw = tv.CIFAR10(cifar10, train=False)
    np.testing.assert_array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), raw.data)
    small = load(DataConfig("cifar10-lt", root=str(cifar10), imbalance=10, image_size=16))
    assert small.train.images.shape[1:] == (3, 16, 16)


def test_absent_cifar_says_where_to_put_what(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(tv, "download_and_extract_archive", offline)
    with pytest.raises(ValueError, match="cifar100-lt needs the files of CIFAR100") as caught:
        load(DataConfig("cifar100-lt", root=str(tmp_path)))
    text = str(caught.value)
    assert str(tmp_path) in text
    assert "no network" in text
    assert "cifar-100-python.tar.gz, the archive from https://" in text
    assert "cifar-100-python/, the unpacked archive" in text
    assert "missing: train, test, meta" in text


def test_spoilt_cifar_is_told_from_absent(cifar10, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(tv, "download_and_extract_archive", offline)
    monkeypatch.setattr(tv.CIFAR10, "train_list", [["data_batch_1", "0" * 32]])
    with pytest.raises(ValueError, match="present, but not the original files"):
        load(DataConfig("cifar10-lt", root=str(cifar10)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar100_lt", "did you mean .cifar100-lt"),
        ("imagenet_lt", "did you mean .imagenet-lt"),
        ("/no/such/table.csv", "there is no such file"),
        ("xyz", "not built in, nor a folder.* digits-lt, cifar10-lt"),
    ],
)
def test_unknown_sources(source, message):
    with pytest.raises(ValueError, match=message):
        load(DataConfig(source))


def test_settings_without_effect_are_told():
    with pytest.warns(UserWarning, match="label_column=kind has no effect on the source digits-lt"):
        load(DataConfig("digits-lt", label_column="kind"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"image_size": 0}, "image_size must be in .*, got 0"),
        ({"image_size": 100_000}, r"image_size must be in \[1, 8192\], got 100000"),
        ({"imbalance": 0.5}, "imbalance must be >= 1, got 0.5"),
        ({"imbalance": float("inf")}, "imbalance must be >= 1 and finite, got inf"),
        ({"test_fraction": 0.0}, r"test_fraction must be in \(0, 1\), got 0.0"),
        ({"test_fraction": 1.0}, r"test_fraction must be in \(0, 1\), got 1.0"),
        ({"val_fraction": 0.8}, "test_fraction 0.2, got 0.8"),
        ({"seed": -1}, "seed of the data must be in"),
        ({"workers": -1}, r"workers must be in \[0, 1024\], got -1"),
    ],
)
def test_settings_out_of_range(setting, message):
    with pytest.raises(ValueError, match=message):
        DataConfig("digits-lt", **setting)


def test_every_built_in_source_says_what_it_is():
    for name, (source, _) in BUILT_IN.items():
        assert source.__name__ == name.replace("-", "_")
        assert source.__doc__
