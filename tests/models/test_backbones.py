from pathlib import Path

import pytest
import torch
from torch import nn

from longtail.models import (
    Backbone,
    CifarResNet,
    CosineHead,
    ImageClassifier,
    Projection,
    backbone_names,
    create_backbone,
    create_head,
    update_ema,
)


@pytest.mark.parametrize("name", backbone_names())
def test_features_of_every_backbone(name: str) -> None:
    backbone = create_backbone(name).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    features = backbone(images)
    assert features.shape == (2, backbone.num_features)
    assert torch.isfinite(features).all()
    torch.testing.assert_close(backbone(images.float()), features)


def test_every_backbone_has_a_line_for_the_list() -> None:
    assert all((make.__doc__ or "").strip() for make in backbone_names().values())
    assert {"resnet32", "resnet56", "smallnet"} <= set(backbone_names())


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.73)]
)
def test_cifar_resnets_have_the_size_of_the_paper(depth: int, millions: float) -> None:
    size = sum(p.numel() for p in CifarResNet(depth).parameters()) / 1e6
    assert round(size, 2) == millions


def test_option_a_shortcut_has_no_parameters_and_pads_evenly() -> None:
    net = CifarResNet(8)
    block = net.blocks[1]  # the first of the second stage: 16 to 32 channels, stride 2
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)
    block.eval()
    x = torch.rand(1, 16, 4, 4)
    out = block(x)
    torch.testing.assert_close(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().max() == 0
    assert out[:, 24:].abs().max() == 0


def test_backbone_normalises_as_its_mean_and_deviation_say() -> None:
    class Identity(Backbone):
        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(Identity(3, mean, std)(images), expected.mean((2, 3)))


def test_depth_must_fit() -> None:
    with pytest.raises(ValueError, match=r"depth .* 6n \+ 2 .* got 33"):
        CifarResNet(33)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="nosuchnet"):
        create_backbone("nosuchnet")
    with pytest.raises(ValueError, match=r"must be one of .*cosine.*got 'oblique'"):
        create_head("oblique", 4, 2)
    with pytest.raises(ValueError, match="no pretrained weights"):
        create_backbone("resnet32", pretrained=True)


def test_what_an_import_path_must_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_broken_nets.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ModuleNotFoundError, match="not_installed_anywhere"
    ):  # a fault of the module
        create_backbone("my_broken_nets.Net")
    with pytest.raises(ValueError, match=r"must be a function or a class, got 3\.14"):
        create_backbone("math.pi")
    with pytest.raises(ValueError, match=r"must make a Backbone, got .*Identity"):
        create_backbone("torch.nn.Identity")


def test_backbone_by_import_path() -> None:
    assert isinstance(create_backbone("longtail.models.resnet20"), CifarResNet)


def test_a_backbone_by_import_path_has_no_weights_that_it_cannot_load() -> None:
    with pytest.raises(ValueError, match="has no pretrained weights"):
        create_backbone("longtail.models.resnet32", pretrained=True)


def test_timm_backbone_by_name() -> None:
    pytest.importorskip("timm")
    backbone = create_backbone("resnet10t")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert backbone(images).shape == (2, backbone.num_features)


def test_cosine_head_knows_only_the_direction() -> None:
    head = CosineHead(5, 3, scale=30.0)
    features = torch.randn(4, 5)
    torch.testing.assert_close(head(features), head(7 * features))
    torch.testing.assert_close(head(head.weight.detach()).diagonal(), torch.full((3,), 30.0))


def test_the_default_linear_head_starts_as_pytorchs_linear_layer() -> None:
    head = create_head("linear_default", 128, 100)
    bound = 128**-0.5
    for values in (head.weight.detach(), head.bias.detach()):
        assert values.abs().max() <= bound
        assert values.std() == pytest.approx(bound / 3**0.5, rel=0.15)
    assert create_head("linear", 128, 100).weight.abs().max() > bound
    model = ImageClassifier(create_backbone("smallnet"), create_head("linear_default", 64, 3))
    assert model.head_name == "linear"  # whose weights it has


def test_cosine_head_starts_at_unit_norm() -> None:
    norms = CosineHead(64, 100).weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(100))


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_logits_are_never_below_float32(name: str) -> None:
    head, features = create_head(name, 64, 100), torch.randn(8, 64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, head(features.float()))


def test_projections_keep_unit_norm_in_bfloat16() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = Projection(64, None, 32)(torch.randn(8, 64))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(8))


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"width": 0}])
def test_projections_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be in .*, got 0"):
        Projection(4, **{"hidden": None, "width": 2, **wrong})


def test_projection_lies_on_the_sphere() -> None:
    embeddings = Projection(6, 8, 4)(torch.randn(10, 6))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(10))


def test_classifier_gradients_reach_the_backbone() -> None:
    model = ImageClassifier(create_backbone("smallnet"), create_head("linear", 64, 3))
    model(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_ema_leaves_the_buffers_alone() -> None:
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(model.weight, 3.0)
    model.running_mean.fill_(9.0)
    update_ema(average, model, decay=0.9)
    torch.testing.assert_close(average.weight.detach(), torch.full((2,), 1.2))
    assert average.running_mean.abs().max() == 0


@pytest.mark.parametrize("name", ["resnet20", "resnet32_branched", "smallnet"])
def test_the_copy_for_inference_gives_the_same_features(name: str) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(name)
    images = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8)
    backbone.train()(images)  # batch norms with something to fold
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    fast = backbone.for_inference()
    assert not any(p.requires_grad for p in fast.parameters())
    assert not fast.training
    expected = backbone.eval()(images)
    torch.testing.assert_close(fast(images), expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(backbone.state_dict()[key], value) for key, value in state.items())


def test_averages_of_other_networks_are_refused() -> None:
    average, model = nn.Linear(3, 3), nn.Linear(3, 3)
    before = average.weight.clone()
    for decay in (1.5, -0.1):
        with pytest.raises(ValueError, match=rf"decay of update_ema .* \[0, 1\], got {decay}"):
            update_ema(average, model, decay)
    model.weight = nn.Parameter(torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"same shapes, got \(3, 3\) and \(3, 1\)"):
        update_ema(average, model, 0.9)
    with pytest.raises(ValueError, match=r"same shapes, got \(3,\) and None"):
        update_ema(average, nn.Linear(3, 3, bias=False), 0.9)
    assert torch.equal(average.weight, before)
