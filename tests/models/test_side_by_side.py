import pytest
import torch

from longtail.models import (
    CosineHead,
    ImageClassifier,
    LinearHead,
    create_backbone,
    ensemble,
)


def classifier(backbone: str, classes: int = 4, scale: float = 30.0) -> ImageClassifier:
    encoder = create_backbone(backbone)
    return ImageClassifier(encoder, CosineHead(encoder.num_features, classes, scale)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)


@pytest.mark.parametrize(
    "backbones", [["resnet20"], ["smallnet", "resnet20"], ["smallnet", "smallnet", "resnet20"]]
)
def test_its_cosines_are_the_mean_of_those_of_its_models(
    backbones: list[str], images: torch.Tensor
) -> None:
    models = [classifier(name) for name in backbones]
    for model in models:  # as trained weights are, not of unit norm
        model.head.weight.data.mul_(torch.rand(4, 1) + 0.5)
    expected = torch.stack([model(images) for model in models]).mean(0)
    whole = ensemble(models).eval()
    assert whole.backbone.num_features == sum(model.backbone.num_features for model in models)
    torch.testing.assert_close(whole(images), expected)
    fast = ImageClassifier(whole.backbone.for_inference(), whole.head)
    torch.testing.assert_close(fast(images), expected, rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in fast.backbone.parameters())


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ([classifier("smallnet", classes=5)], "scale 30, CosineHead of 5 classes with scale 30"),
        ([classifier("smallnet", scale=16.0)], "scale 30, CosineHead of 4 classes with scale 16"),
        ([ImageClassifier(create_backbone("smallnet"), LinearHead(64, 4))], "scale 30, LinearHead"),
    ],
)
def test_models_that_have_no_mean(others: list[ImageClassifier], found: str) -> None:
    rule = "cosine heads .* with the same classes and scale, got "
    with pytest.raises(ValueError, match=f"{rule}CosineHead of 4 classes with {found}$"):
        ensemble([classifier("smallnet"), *others])
    with pytest.raises(ValueError, match=f"{rule}none"):
        ensemble([])
