import torch

from longtail import ClassPrior
from longtail.metrics import score_samples, suspected_label_errors
from longtail.shift import adjust

UNIFORM = [1 / 3] * 3


def long_tailed(seed=0):
    """Well separated classes, 600, 60 and 12 samples, with logits that express that prior."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([600, 60, 12]))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(labels), 3, generator=generator) + 6 * torch.eye(3)[labels]
    prior = ClassPrior.from_labels(labels)
    return logits + prior.log_prior, labels, prior


def test_flipped_labels_are_found_and_the_tail_is_not_suspected():
    logits, labels, prior = long_tailed()
    given = labels.clone()
    flipped = torch.tensor([5, 50, 500, 610, 650, 665])
    given[flipped] = (given[flipped] + 1) % 3
    found = suspected_label_errors(score_samples(adjust(logits, prior, UNIFORM), given))
    assert set(flipped.tolist()) <= set(found.tolist())
    assert len(found) <= len(flipped) + 3


def test_right_labels_are_not_suspected():
    logits, labels, prior = long_tailed()
    scores = score_samples(adjust(logits, prior, UNIFORM), labels)
    assert len(suspected_label_errors(scores)) <= 2


def test_the_uniform_prior_suspects_no_group_for_being_rare():
    """Overlapping classes with exact posteriors and right labels."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([6000, 600, 120]))
    prior = ClassPrior.from_labels(labels)
    generator = torch.Generator().manual_seed(0)
    likelihood = torch.randn(len(labels), 3, generator=generator) + torch.eye(3)[labels]

    def shares(logits):
        suspects = labels[suspected_label_errors(score_samples(logits, labels))]
        return (torch.bincount(suspects, minlength=3) / prior.counts).tolist()

    head, _, tail = shares(likelihood + prior.log_prior)
    assert tail > 20 * head
    head, _, tail = shares(adjust(likelihood + prior.log_prior, prior, UNIFORM))
    assert tail < 1.5 * head


def test_the_surest_come_first():
    logits = torch.tensor([[9.0, 0.0]] * 4 + [[0.0, 9.0]] * 4 + [[0.0, 30.0], [9.0, 0.0]])
    labels = [0] * 4 + [1] * 4 + [0, 1]
    assert suspected_label_errors(score_samples(logits, labels)).tolist() == [8, 9]
