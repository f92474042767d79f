import pytest
import torch

from longtail.models import create_backbone, merge_lora, smallnet, tune_backbone


def images(size: int = 160) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, size, size), generator=generator, dtype=torch.uint8)


def trained(module: torch.nn.Module) -> list[str]:
    return [name for name, p in module.named_parameters() if p.requires_grad]


def test_a_frozen_backbone_keeps_its_statistics():
    backbone = smallnet()
    tune_backbone(backbone, "head")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    torch.nn.Sequential(backbone).train()(images(8))
    assert trained(backbone) == []
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_norms_alone_are_trained():
    backbone = smallnet()
    tune_backbone(backbone, "norm")
    assert {name.split(".")[0] for name in trained(backbone)} == {"norms"}
    assert not backbone.train().training


def test_all_is_everything():
    backbone = smallnet()
    tune_backbone(backbone, "all")
    assert len(trained(backbone)) == len(list(backbone.parameters()))
    assert backbone.train().training


def test_lora_begins_as_the_backbone_and_is_merged_into_it():
    pytest.importorskip("peft")
    pytest.importorskip("timm")
    torch.manual_seed(0)
    backbone = create_backbone("test_vit").eval()
    keys, count = set(backbone.state_dict()), sum(p.numel() for p in backbone.parameters())
    before = backbone(images())
    tune_backbone(backbone, "lora", rank=4)
    assert torch.equal(backbone(images()), before)
    assert trained(backbone)
    assert all("lora_" in name for name in trained(backbone))
    assert sum(p.numel() for p in backbone.parameters() if p.requires_grad) < 0.2 * count
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    changed = backbone(images())
    assert not torch.allclose(changed, before, atol=1e-2)
    merge_lora(backbone)
    assert set(backbone.state_dict()) == keys
    torch.testing.assert_close(backbone(images()), changed, rtol=1e-4, atol=1e-4)


def test_lora_needs_a_transformer():
    pytest.importorskip("peft")
    with pytest.raises(ValueError, match="tune lora needs a transformer of timm"):
        tune_backbone(smallnet(), "lora")


@pytest.mark.parametrize(
    ("name", "features", "millions"),
    [
        ("resnet50", 2048, 23.5),
        ("resnext50_32x4d", 2048, 23.0),
        ("resnext101_32x8d", 2048, 86.7),
        ("resnet152", 2048, 58.1),
        ("vit_base_patch16_224", 768, 85.8),
    ],
)
def test_backbones_of_the_papers_have_no_classifier_of_their_own(name, features, millions):
    pytest.importorskip("timm")
    with torch.device("meta"):  # shapes alone: nothing is computed
        backbone = create_backbone(name)
        out = backbone(torch.zeros(2, 3, 224, 224, dtype=torch.uint8))
    assert backbone.num_features == features
    assert out.shape == (2, features)
    count = sum(p.numel() for p in backbone.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.05)
