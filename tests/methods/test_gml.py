import pytest
import torch

from longtail import ClassPrior
from longtail.losses import dbm_loss, gml_loss, logit_adjusted_loss
from longtail.methods import GML
from longtail.models import CosineHead, ImageClassifier, create_backbone, create_head

PRIOR = ClassPrior([20, 8, 4])


def batch(step: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    views = torch.randint(0, 256, (3, 6, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return views, torch.tensor([0, 0, 0, 1, 1, 2]), torch.arange(6) + 6 * step


def teacher(head: str = "cosine") -> ImageClassifier:
    backbone = create_backbone("smallnet_wide")
    return ImageClassifier(backbone, create_head(head, backbone.num_features, 3))


def test_the_loss_is_that_of_its_parts() -> None:
    torch.manual_seed(0)
    method = GML(PRIOR, create_backbone("smallnet"), teacher=teacher(), queue_size=12, alpha=0.7)
    views, target, index = batch()
    method.eval()  # batch norm without batches, so that the parts can be computed one by one
    loss = method(views, target, index)["loss"]
    model = method.model
    assert isinstance(model.head, CosineHead)
    taught = method.teacher.network
    assert isinstance(taught.head, CosineHead)
    # The batch fits the queue: its keys are all there, sorted by class, as they came.
    expected = gml_loss(
        method.project_query(model.backbone(views[1])),
        method.project_key(taught.backbone(views[2])),
        target,
        model.head.cosine(model.backbone(views[0])),
        target,
        PRIOR.log_prior,
        torch.tensor(0.1).log(),
        query_index=index,
        key_index=index,
        teacher_logits=taught.head.cosine(taught.backbone(views[0])),
        alpha=0.7,
    )
    torch.testing.assert_close(loss, expected)


def test_margins_change_the_loss_of_the_classifier_alone() -> None:
    values = []
    for max_margin in (0.0, 0.2):
        torch.manual_seed(0)
        method = GML(PRIOR, create_backbone("smallnet"), queue_size=12, max_margin=max_margin)
        method.eval()
        views, target, index = batch()
        values.append(method(views, target, index)["loss"])
    logits = method.model(views[0])
    without = logit_adjusted_loss(logits, target, PRIOR.log_prior)
    margins = dbm_loss(logits, target, PRIOR.counts, max_margin=0.2)
    assert margins > without
    torch.testing.assert_close(values[1] - values[0], margins - without)


def test_the_queue_holds_raw_features_of_the_key_view() -> None:
    torch.manual_seed(0)
    method = GML(PRIOR, create_backbone("smallnet"), teacher=teacher(), queue_size=12)
    views, target, index = batch()
    method(views, target, index)
    stored = method.stored_keys()
    assert stored.labels.tolist() == target.tolist()
    assert stored.index.tolist() == index.tolist()
    with torch.no_grad():
        torch.testing.assert_close(stored.features, method.teacher.network.backbone(views[2]))


def test_the_teacher_sees_what_is_asked_of_it_and_no_more() -> None:
    seen: list[int] = []
    for alpha, images in ((0.0, 6), (1.0, 12)):
        method = GML(PRIOR, create_backbone("smallnet"), teacher=teacher(), alpha=alpha)
        method.teacher.network.backbone.register_forward_pre_hook(
            lambda module, args: seen.append(len(args[0]))
        )
        method(*batch())
        assert seen.pop() == images


def test_the_teacher_never_changes_and_is_no_part_of_the_state() -> None:
    taught = teacher().train()
    before = {name: value.clone() for name, value in taught.state_dict().items()}
    method = GML(PRIOR, create_backbone("smallnet"), teacher=taught, queue_size=12).train()
    loss = method(*batch())["loss"]
    loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in taught.state_dict().items())
    assert all(p.grad is None for p in taught.parameters())
    # Keys of the student's width are in no buffer: the teacher's 128 features are.
    assert method.queue.features.shape == (12, 128)
    assert not any("teacher" in name for name in method.state_dict())


def test_the_momentum_encoder_follows_without_gradients() -> None:
    method = GML(PRIOR, create_backbone("smallnet"), queue_size=12, momentum=0.5)
    assert not any(p.requires_grad for p in method.key_encoder.parameters())
    with torch.no_grad():
        method.model.backbone.convs[0].weight.add_(1.0)
        method.project_query[0].weight.add_(1.0)
    gap = method.model.backbone.convs[0].weight - method.key_encoder.convs[0].weight
    torch.testing.assert_close(gap, torch.ones_like(gap))
    method.after_step()
    gap = method.model.backbone.convs[0].weight - method.key_encoder.convs[0].weight
    torch.testing.assert_close(gap, torch.full_like(gap, 0.5))
    gap = method.project_query[0].weight - method.project_key[0].weight
    torch.testing.assert_close(gap, torch.full_like(gap, 0.5))


def test_the_contrast_trains_the_key_projection_only_with_a_teacher() -> None:
    for taught in (teacher(), None):
        method = GML(PRIOR, create_backbone("smallnet"), teacher=taught, queue_size=12)
        method(*batch())["loss"].backward()
        grads = [p.grad for p in method.project_key.parameters()]
        assert all((g is not None) == (taught is not None) for g in grads)
        assert method.criterion.log_temperature.grad is not None


def test_teachers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="teacher of GML must have a cosine head"):
        GML(PRIOR, create_backbone("smallnet"), teacher=teacher("linear"), queue_size=12)
    with pytest.raises(ValueError, match="must have the run's 2 classes, got 3"):
        GML(ClassPrior([2, 1]), create_backbone("smallnet"), teacher=teacher(), queue_size=12)
