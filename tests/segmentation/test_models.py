import pytest
import torch

from longtail.models import (
    backbone_names,
    create_backbone,
    create_dense_head,
    create_head,
)
from longtail.segmentation import (
    DenseBackbone,
    Segmenter,
    SmallUNet,
    create_dense_backbone,
    dense_backbone_names,
)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (16, 16)])
def test_small_network_at_any_size(size: tuple[int, int]) -> None:
    backbone = SmallUNet((4, 8, 8, 8), (1, 1, 1), num_features=6)
    model = Segmenter(backbone, create_dense_head("linear", 6, 3)).eval()
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert backbone(images).shape == (2, 6, (size[0] + 1) // 2, (size[1] + 1) // 2)
    logits = model(images)
    assert logits.shape == (2, 3, *size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_cosine_head_is_that_of_pixels() -> None:
    head = create_dense_head("cosine", 6, 3)
    features = torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cosine_similarity(
        features[:, None], head.weight[None, :, :, None, None], dim=2
    )
    torch.testing.assert_close(head(features), 30 * expected)
    assert head(torch.zeros(1, 6, 1, 1)).isfinite().all()


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_heads_compute_in_float32_under_autocast(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 64, 4, 5, generator=generator)
    rows = features.movedim(1, -1).flatten(0, 2)
    for head, given in (
        (create_dense_head(name, 64, 7), features),
        (create_head(name, 64, 7), rows),
    ):
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(given)
        exact = head.double()(given.double())
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits.double(), exact, rtol=1e-5, atol=1e-5)


def test_a_model_sees_levels_not_normalised_pictures() -> None:
    backbone = SmallUNet((4, 8, 8, 8), (1, 1, 1), num_features=6).eval()
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(backbone(images), backbone(images.float()))


def test_networks_by_name() -> None:
    assert "small_unet" in dense_backbone_names()
    assert "small_unet" not in backbone_names()
    assert isinstance(create_dense_backbone("longtail.segmentation.small_unet"), SmallUNet)
    with pytest.raises(ValueError, match=r"must make a DenseBackbone, got .*SmallNet"):
        create_dense_backbone("longtail.models.smallnet")
    with pytest.raises(ValueError, match=r"must make a Backbone, got .*SmallUNet"):
        create_backbone("longtail.segmentation.small_unet")
    with pytest.raises(ValueError, match="has no pretrained weights"):
        create_dense_backbone("small_unet", pretrained=True)
    with pytest.raises(ValueError, match=r"head must be one of \['cosine', 'linear'\]"):
        create_dense_head("round", 6, 3)


@pytest.mark.parametrize("decoder", ["atrous", "pyramid"])
def test_timm_encoders(decoder: str) -> None:
    pytest.importorskip("timm")
    backbone = create_dense_backbone("test_resnet", decoder=decoder).train()
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    features = backbone(images)
    assert isinstance(backbone, DenseBackbone)
    assert features.shape == (1, backbone.num_features, 16, 24)
    features.sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_what_timm_cannot_do() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"map at a quarter of the image's size.*1/16"):
        create_dense_backbone("test_vit")
    with pytest.raises(ValueError, match=r"no_such_network.*longtail.*timm"):
        create_dense_backbone("no_such_network")
    with pytest.raises(ValueError, match=r"decoder must be one of \['atrous', 'pyramid'\]"):
        create_dense_backbone("test_resnet", decoder="round")


def test_gradient_of_the_cosine_head_by_finite_differences() -> None:
    head = create_dense_head("cosine", 3, 2).double()
    features = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (features,))
