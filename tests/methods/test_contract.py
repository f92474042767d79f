"""What every method must do, whether of the package or added later: found by its name."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from longtail import ClassPrior
from longtail.methods import Method, MixPartner, create_method, find_method, method_names
from longtail.models import CosineHead, Frozen, ImageClassifier, LinearHead, create_backbone
from longtail.settings import from_keywords, to_config
from longtail.training.input import TrainingBatch

PRIOR = ClassPrior([20, 8, 4])
SETTINGS = {"gml": {"queue_size": 24}}
FOUND = method_names()
# tau_norm trains nothing: see test_retrained.py
CASES = [(name, False) for name in FOUND if name != "tau_norm"] + [
    (name, True) for name, found in FOUND.items() if getattr(found, "teacher_method", {})
]


def make(name: str, taught: bool) -> Method:
    torch.manual_seed(0)
    earlier = None
    if taught or getattr(FOUND[name], "first_method", ""):
        backbone = create_backbone("smallnet_wide")
        head = CosineHead if taught else LinearHead
        earlier = ImageClassifier(backbone, head(backbone.num_features, PRIOR.num_classes))
    backbone = create_backbone("smallnet")
    return create_method(name, SETTINGS.get(name, {}), PRIOR, backbone, earlier).train()


def three_steps(method: Method, first: int = 0, last: int = 3) -> list[float]:
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        shape = (method.num_views, 6, 3, 8, 8)
        views = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        target = torch.tensor([0, 0, 0, 1, 1, 2])
        method.set_progress(step / 3)
        optimizer.zero_grad()
        loss = method(views, target, torch.arange(6) + 6 * step)["loss"]
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("name", "taught"), CASES)
def test_three_steps_move_every_weight_that_is_trained(name: str, taught: bool) -> None:
    method = make(name, taught)
    before = {n: p.detach().clone() for n, p in method.named_parameters() if p.requires_grad}
    losses = three_steps(method)
    assert all(torch.isfinite(torch.tensor(losses)))
    still = [n for n, p in method.named_parameters() if n in before and torch.equal(p, before[n])]
    assert still == []


@pytest.mark.parametrize(("name", "taught"), CASES)
def test_state_dict_is_the_whole_state(name: str, taught: bool) -> None:
    whole = make(name, taught)
    three_steps(whole, last=1)
    other = make(name, taught)
    three_steps(other, last=2)  # elsewhere in its life, so that all state must come from the other
    other.load_state_dict(whole.state_dict())
    assert three_steps(whole, 1) == three_steps(other, 1)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(whole.eval().model(images), other.eval().model(images))


@pytest.mark.parametrize(("name", "taught"), CASES)
def test_bf16_autocast(name: str, taught: bool) -> None:
    method = make(name, taught)
    views = torch.randint(0, 256, (method.num_views, 4, 3, 8, 8), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(views, torch.tensor([0, 1, 2, 0]), torch.arange(4))["loss"]
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(loss)


def random_batch(method: Method, step: int, mixed: bool) -> TrainingBatch:
    generator = torch.Generator().manual_seed(step)
    shape = (method.num_views, 6, 3, 8, 8)
    views = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    target = torch.tensor([0, 0, 0, 1, 1, 2])[torch.randperm(6, generator=generator)]
    share = torch.rand(6, generator=generator)
    partner = MixPartner(target.roll(1), share) if mixed else None
    return TrainingBatch(views, target, torch.arange(6) + 6 * step, partner)


def after_warm_up(name: str, taught: bool) -> Method:
    """Where GML's queue is full: until then the host waits for the number of its keys."""
    method = make(name, taught)
    for epoch in range(10 if name == "gml" else 1):
        three_steps(method, 3 * epoch, 3 * epoch + 3)
    return method


@pytest.mark.parametrize(("name", "taught"), CASES)
def test_a_step_reads_nothing_back_from_the_device(name: str, taught: bool) -> None:
    """Tensors of the meta device have no values: whoever asks for one gets an error."""
    method = after_warm_up(name, taught).to("meta")
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    views = torch.zeros(method.num_views, 6, 3, 8, 8, dtype=torch.uint8, device="meta")
    target, index = torch.zeros(2, 6, dtype=torch.int64, device="meta")
    method.set_progress(0.9)
    loss = method(views, target, index)["loss"]
    assert loss.is_meta
    loss.backward()
    optimizer.step()
    method.after_step()


def to_fake_gpu(module: nn.Module) -> None:
    """Puts fake tensors of a GPU in the place of all tensors, those of frozen networks, too."""
    for part in module.modules():
        if isinstance(part, Frozen):
            to_fake_gpu(part.network)
        for name, old in part._parameters.items():
            if old is not None:
                new = torch.empty_like(old, device="cuda")
                part._parameters[name] = nn.Parameter(new, old.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty_like(buffer, device="cuda")


@pytest.mark.parametrize(("name", "taught"), CASES)
def test_on_a_gpu_nothing_waits_for_it_or_is_copied_to_it(
    name: str, taught: bool, foreign: Any
) -> None:
    """Fake tensors know the device, not the values; the pass backward would need a real one."""
    method = after_warm_up(name, taught)
    batch = random_batch(method, 0, type(method).mixes)
    with FakeTensorMode(allow_non_fake_inputs=True):
        to_fake_gpu(method)
        views, target, index = (given.cuda() for given in (batch.views, batch.target, batch.index))
        partner = batch.partner and MixPartner(target, batch.partner.weight.cuda())
        batch = TrainingBatch(views, target, index, partner)
        with foreign:
            method.set_progress(0.9)
            loss = method(*batch.arguments())["loss"]
            method.after_step()
    assert loss.device.type == "cuda"
    assert not foreign.found


@pytest.mark.parametrize(("name", "taught"), CASES)
def test_compiles_without_graph_breaks(name: str, taught: bool) -> None:
    torch.compiler.reset()
    method = after_warm_up(name, taught)
    batch, twin = random_batch(method, 0, type(method).mixes), copy.deepcopy(method)
    compiled = torch.compile(method, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*batch.arguments())["loss"], twin(*batch.arguments())["loss"])


@pytest.mark.parametrize(("name", "taught"), CASES)
def test_recorded_steps_equal_computed_ones(
    name: str, taught: bool, train_steps: Callable[..., Any], assert_same: Callable[..., None]
) -> None:
    """Over a boundary of epochs, and from before GML's queue is full until after."""
    mixed, trained = type(make(name, taught)).mixes, []
    for recorded in (False, True):
        method = make(name, taught)
        epochs = [[random_batch(method, 5 * e + s, mixed) for s in range(5)] for e in range(5)]
        trained.append(train_steps(method, epochs, recorded=recorded))
    assert_same(*trained)
    recorder = trained[1].gradients.recorder
    assert recorder.replays > 5
    assert recorder.recordings == (2 if name == "ldam" else 1)  # its weights come late


def test_every_method_has_a_line_for_the_list() -> None:
    for name, found in method_names().items():
        assert (found.__doc__ or "").split("\n")[0], name


def test_a_loss_has_the_head_that_it_is_meant_for() -> None:
    backbone = create_backbone("smallnet")
    assert create_method("ldam", {}, PRIOR, backbone).model.head_name == "cosine"
    assert create_method("ce", {}, PRIOR, backbone).model.head_name == "linear"
    assert to_config(from_keywords("digits-lt", "ldam")).method["head"] == "cosine"
    for wrong in ({"head": "linear"}, {"loss": {"scale": 20.0}}):
        with pytest.raises(ValueError, match="LDAMLoss must have a cosine head of its scale"):
            create_method("ldam", wrong, PRIOR, backbone)


def test_a_class_by_its_import_path() -> None:
    assert find_method("longtail.methods.gml.GML") is find_method("gml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gmll", "got 'gmll'; did you mean 'gml'"),
        ("nosuch.module.Loss", "an import path, got 'nosuch.module.Loss'"),
        (
            "longtail.losses.Nothing",
            "'longtail.losses.Nothing': module 'longtail.losses' has no 'Nothing'",
        ),
        ("longtail.methods.base.Method", "must not be an abstract class"),
        ("longtail.segmentation.methods.PixelGML", "one for classification, it is for segment"),
        ("longtail.ClassPrior", "must be a Method or a ClassificationLoss"),
    ],
)
def test_names_that_are_no_method(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_method(name)
