"""Functions of the package with possibly nonsensical arguments, for `fuzz.py`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

import longtail
from longtail import ClassPrior, losses, metrics
from longtail.data import ClassBalancedSampler, DataConfig, load
from longtail.data.longtailed import ImbalanceType, long_tailed_counts, long_tailed_subset
from longtail.files import read_values
from longtail.losses import ClassificationLoss
from longtail.metrics.confusion import Confusion
from longtail.models import create_backbone
from longtail.segmentation import IndexCoding, PixelDataConfig, read_class_names, read_palette
from longtail.settings import from_keywords, to_config
from longtail.shift import adjust, read_prior, resolve_prior
from longtail.training import Config

CLASSES = 3
PRIOR = ClassPrior([9, 5, 2])
ODD: list[Any] = [None, "", "x", "0.5", [], {}, True, b"a", 10**20, -(2**63), 1e300]
ODD += [float("nan"), float("inf"), torch.tensor(1.0), np.float32(0.5), np.array([1, 2]), 1j]

odd = st.sampled_from(ODD)
few = st.sampled_from([0.0, 0.5, 1.0, 1, 2, 3])
number = st.one_of(few, few, st.floats(width=32), st.integers(-3, 12), odd)
shape = st.sampled_from([*[(4, CLASSES)] * 9, (0, CLASSES), (4, 2), (4,), ()])
element = st.sampled_from([0.0, 1.0, -2.5, 1e4, -1e30, float("inf"), -float("inf"), float("nan")])
dtype = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int32])


@st.composite
def logits(draw: Any) -> Any:
    """Scores, mostly of four samples and three classes."""
    size = draw(shape)
    tensor = torch.linspace(-1, 1, int(np.prod(size))).reshape(size)
    if draw(st.booleans()):
        values = torch.tensor(draw(st.lists(element, min_size=12, max_size=12)))
        tensor = values[: tensor.numel()].reshape(size)
    return draw(forms(tensor.to(draw(dtype))))


@st.composite
def target(draw: Any) -> Any:
    """Classes of four samples, or not."""
    wild = draw(st.integers(0, 2)) == 0
    values = draw(st.lists(st.sampled_from([0, 1, 2, 3, -1, -100, 2**40]), min_size=4, max_size=4))
    kept = values if wild else [value % CLASSES for value in values]
    kinds = [torch.int64, torch.int32, torch.uint8, torch.float32, torch.bool]
    kind = draw(st.sampled_from(kinds)) if wild else torch.int64
    size = draw(st.sampled_from([4, 0, 3])) if wild else 4
    return draw(forms(torch.tensor(kept)[:size].to(kind)))


def forms(tensor: torch.Tensor) -> st.SearchStrategy[Any]:
    """A tensor, mostly as it is."""
    others = [tensor.tolist(), tensor.numpy(), tensor.to("meta"), tensor[None], *ODD]
    return st.one_of(*[st.just(tensor)] * 3, st.sampled_from(others))


@st.composite
def prior(draw: Any) -> Any:
    """Probabilities of three classes, or not."""
    good = [[0.2, 0.3, 0.5], [0.0, 0.5, 0.5], [0.5, 0.5], [0.5, 0.6, -0.1], [9, 5, 2]]
    return draw(st.one_of(st.just(PRIOR), st.sampled_from(good).map(torch.tensor), logits()))


def settings_of(made: type) -> list[str]:
    """Keywords of a constructor."""
    return [p.name for p in inspect.signature(made).parameters.values() if p.name != "prior"]


CRITERIA = [
    cls
    for cls in (getattr(losses, name) for name in losses.__all__)
    if isinstance(cls, type)
    and issubclass(cls, ClassificationLoss)
    and cls is not ClassificationLoss
]


def make_loss(cls: type, given: Mapping[str, Any]) -> Any:
    return cls(PRIOR, **given)


loss_settings = st.sampled_from(CRITERIA).flatmap(
    lambda cls: st.tuples(
        st.just(cls),
        st.dictionaries(st.sampled_from(settings_of(cls) or ["none"]), number, max_size=2).map(
            lambda given: {k: v for k, v in given.items() if k != "none"}
        ),
    )
)
text = st.text(st.sampled_from("ab,;\t\"'#0.5 \n\r|-={}[]:\u00e9\x00"), max_size=40)
files = st.one_of(text.map(lambda t: t.encode()), st.binary(max_size=40))


def with_file(read: Callable[[str], Any], suffixes: list[str]) -> tuple[Callable[..., Any], Any]:
    """A reader of files, with any content."""

    def call(content: bytes, suffix: str) -> Any:
        path = Path(f"fuzzed{suffix}")
        path.write_bytes(content)
        return read(str(path))

    return call, st.tuples(files, st.sampled_from(suffixes))


cell = st.sampled_from(["0.png", "1.png", " 2.png", "a", "b", "", '"a', "train", "\u00e9"])
GOOD = [["0.png", "a"], ["1.png", "b"], ["2.png", "a"], ["3.png", "b"], [" 4.png", "a"]]
table = st.tuples(
    st.sampled_from(["path,label", "path,label", "path;label;split", '"path", "label"', "sep=|"]),
    st.one_of(st.just(GOOD), st.lists(st.lists(cell, max_size=3), max_size=6)),
    st.sampled_from([",", ",", ", ", ";", "|"]),
    st.sampled_from(["utf-8", "utf-16", "cp1252", "utf-32"]),
    st.one_of(st.just(b""), st.binary(max_size=3)),
)


def read_table(header: str, rows: list[Any], separator: str, encoding: str, end: bytes) -> Any:
    lines = [header, *(separator.join(row) for row in rows), ""]
    Path("t.csv").write_bytes("\n".join(lines).encode(encoding) + end)
    return load(DataConfig("t.csv", test_fraction=0.5))


def config_with(made: type, given: Mapping[str, Any], **fixed: Any) -> Any:
    return made(**{**fixed, **given})


def some_fields(made: type) -> st.SearchStrategy[dict[str, Any]]:
    names = [f.name for f in fields(made) if f.name not in ("data", "method", "source", "task")]
    return st.dictionaries(st.sampled_from(names), number, min_size=1, max_size=3)


def decode(values: Any, ignored: Any, mode: str) -> Any:
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).convert(mode)
    return IndexCoding(values, ignored).decode(picture)


TARGETS: dict[str, tuple[Callable[..., Any], st.SearchStrategy[tuple[Any, ...]]]] = {
    "loss": (
        lambda cls, *given: cls(PRIOR)(*given),
        st.tuples(st.sampled_from(CRITERIA), logits(), target(), st.one_of(st.none(), logits())),
    ),
    "settings of a loss": (make_loss, loss_settings),
    "focal_loss": (losses.focal_loss, st.tuples(logits(), target())),
    "logit_adjusted_loss": (
        lambda x, y, tau: losses.logit_adjusted_loss(x, y, PRIOR.log_prior, tau=tau),
        st.tuples(logits(), target(), number),
    ),
    "supervised_contrastive_loss": (
        lambda x, y, t: losses.supervised_contrastive_loss(x, y, temperature=t),
        st.tuples(logits(), target(), number),
    ),
    "distillation_loss": (losses.distillation_loss, st.tuples(logits(), logits())),
    "class_scores": (
        losses.class_scores,
        st.tuples(logits(), logits(), target(), st.just(CLASSES), number),
    ),
    "classification_metrics": (
        lambda x, y: metrics.classification_metrics(x, y, PRIOR),
        st.tuples(logits(), target()),
    ),
    "calibration_curve": (metrics.calibration_curve, st.tuples(logits(), target(), number)),
    "per_class_recall": (metrics.per_class_recall, st.tuples(logits(), target())),
    "Confusion": (Confusion.from_labels, st.tuples(target(), target(), st.just(CLASSES))),
    "ClassPrior": (ClassPrior, st.tuples(st.one_of(logits(), target()))),
    "ClassPrior.from_labels": (ClassPrior.from_labels, st.tuples(target(), number)),
    "adjust": (adjust, st.tuples(logits(), prior(), prior())),
    "resolve_prior": (
        lambda value: resolve_prior(value, PRIOR, CLASSES),
        st.tuples(st.one_of(prior(), text)),
    ),
    "read_prior": with_file(lambda p: read_prior(p, ["a", "b"]), [".csv", ".json", ".txt"]),
    "read_values": with_file(read_values, [".yaml", ".json"]),
    "read_palette": with_file(read_palette, [".txt"]),
    "read_class_names": with_file(read_class_names, [".txt"]),
    "table": (read_table, table),
    "any table": with_file(lambda p: load(DataConfig(p)), [".csv", ".tsv", ".parquet"]),
    "DataConfig": (
        lambda given: config_with(DataConfig, given, source="digits-lt"),
        st.tuples(some_fields(DataConfig)),
    ),
    "PixelDataConfig": (
        lambda given: config_with(PixelDataConfig, given, source="x"),
        st.tuples(some_fields(PixelDataConfig)),
    ),
    "settings of a training": (
        lambda data, method, given: to_config(from_keywords(data, method, **given)),
        st.tuples(
            st.sampled_from(["digits-lt", "cifar100-lt", "x", {"source": "digits-lt", "seed": 1}]),
            st.sampled_from(
                ["gml", "ce", "lade", "x", {"name": "ce"}, {"name": "gml", "width": 0}]
            ),
            some_fields(Config),
        ),
    ),
    "long_tailed_counts": (
        long_tailed_counts,
        st.tuples(number, number, number, st.sampled_from([*get_args(ImbalanceType), "x"])),
    ),
    "long_tailed_subset": (long_tailed_subset, st.tuples(target(), target(), number)),
    "ClassBalancedSampler": (
        lambda labels, power: list(ClassBalancedSampler(labels, power=power)),
        st.tuples(target(), number),
    ),
    "create_backbone": (create_backbone, st.tuples(st.one_of(text, odd))),
    "IndexCoding": (
        decode,
        st.tuples(
            st.lists(st.integers(0, 255), max_size=14).map(tuple),
            st.lists(st.integers(0, 255), max_size=3).map(tuple),
            st.sampled_from(["L", "RGB", "RGBA", "1", "F", "I", "LA", "CMYK"]),
        ),
    ),
    "list_names": (longtail.api.list_names, st.tuples(st.one_of(text, odd))),
}


def make_files() -> None:
    """Images that the tables name, in the current folder."""
    for number in range(5):
        noise = np.random.RandomState(number).randint(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(f"{number}.png")
