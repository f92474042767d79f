"""Every loss against its formula written again as slow loops, value and gradients.

Shapes are small and drawn at random: absent classes, one class, a batch of one, duplicate images,
keys in any order, ties (all features come from a small set of unit vectors).
"""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtail import losses

quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)
sizes = st.integers(1, 5)
seeds = st.integers(0, 10**6)


class Draw:
    """Random inputs of a case, float64."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def unit(self, *shape: int) -> Tensor:
        pool = torch.nn.functional.normalize(
            torch.randn(4, shape[-1], generator=self.generator, dtype=torch.float64), dim=1
        )
        return pool[self.integers(4, *shape[:-1])].requires_grad_()

    def normal(self, *shape: int) -> Tensor:
        values = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return (3 * values).requires_grad_()

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def log_prior(self, num_classes: int) -> Tensor:
        counts = self.integers(50, num_classes) + 1.0
        return (counts / counts.sum()).double().log()


def assert_same(fast: Tensor, slow: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad(fast, inputs, allow_unused=True, materialize_grads=True)
    expected = torch.autograd.grad(slow, inputs, allow_unused=True, materialize_grads=True)
    for got, want in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


def log_sum_exp(values: list[Tensor]) -> Tensor:
    return torch.logsumexp(torch.stack(values), 0)


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def nats(scores: dict[int, Tensor], target: int) -> Tensor:
    """Cross-entropy over the classes that have a score."""
    return log_sum_exp(list(scores.values())) - scores[target]


def slow_scores(
    b: int,
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    temperature: Tensor,
    left_out: Callable[[int, int], bool],
) -> dict[int, Tensor]:
    scores = {}
    for c in range(num_classes):
        mine = [
            (query[b] * key[k]).sum() / temperature
            for k in range(len(key))
            if key_labels[k] == c and not left_out(b, k)
        ]
        if mine:
            scores[c] = log_sum_exp(mine) - math.log(len(mine))
    return scores


@quick
@given(seeds, sizes, st.integers(1, 12), sizes, st.integers(2, 4), st.booleans())
def test_class_scores(
    seed: int, batch: int, keys: int, num_classes: int, width: int, some_excluded: bool
) -> None:
    draw = Draw(seed)
    query, key = draw.unit(batch, width), draw.unit(keys, width)
    key_labels = draw.integers(num_classes + 1, keys) - 1  # -1 counts for nothing
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    exclude = draw.integers(2, batch, keys).bool() if some_excluded else None
    fast = losses.class_scores(query, key, key_labels, num_classes, temperature, exclude=exclude)
    slow = torch.full((batch, num_classes), -torch.inf, dtype=torch.float64)
    for b in range(batch):
        scores = slow_scores(
            b,
            query,
            key,
            key_labels,
            num_classes,
            temperature,
            lambda b, k: exclude is not None and bool(exclude[b, k]),
        )
        for c, score in scores.items():
            slow[b, c] = score
    assert torch.equal(fast.isinf(), slow.isinf())
    weight = torch.where(slow.isinf(), 0.0, draw.normal(batch, num_classes).detach())
    fast, slow = torch.where(slow.isinf(), 0.0, fast), torch.where(slow.isinf(), 0.0, slow)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    if not slow.requires_grad:  # no class has a key for any query
        slow = slow + 0 * temperature
    assert_same((weight * fast).sum(), (weight * slow).sum(), query, key, temperature)


@quick
@given(seeds, sizes, st.integers(1, 14), sizes, st.booleans(), st.booleans())
def test_gml(
    seed: int, batch: int, keys: int, num_classes: int, numbered: bool, taught: bool
) -> None:
    draw = Draw(seed)
    width, scale, alpha, beta, gamma, t = 3, 5.0, 0.7, 0.6, 0.9, 4.0
    query, key = draw.unit(batch, width), draw.unit(keys, width)
    key_labels, target = draw.integers(num_classes, keys), draw.integers(num_classes, batch)
    logits, teacher = draw.normal(batch, num_classes), draw.normal(batch, num_classes).detach()
    log_prior = draw.log_prior(num_classes)
    log_temperature = torch.tensor(-1.5, dtype=torch.float64, requires_grad=True)
    query_index, key_index = draw.integers(6, batch), draw.integers(6, keys)
    fast = losses.gml_loss(
        query,
        key,
        key_labels,
        logits,
        target,
        log_prior,
        log_temperature,
        query_index=query_index if numbered else None,
        key_index=key_index if numbered else None,
        teacher_logits=teacher if taught else None,
        alpha=alpha if taught else 0.0,
        beta=beta,
        gamma=gamma,
        logit_scale=scale,
    )

    def contrast(query: Tensor, key: Tensor, temperature: Tensor, without_own: bool) -> Tensor:
        counted = []
        for b in range(batch):
            scores = slow_scores(
                b,
                query,
                key,
                key_labels,
                num_classes,
                temperature,
                lambda b, k: without_own and bool(query_index[b] == key_index[k]),
            )
            if int(target[b]) in scores:
                scores = {c: score + log_prior[c] for c, score in scores.items()}
                counted.append(nats(scores, int(target[b])))
        return mean(counted) if counted else torch.zeros((), dtype=torch.float64)

    temperature = log_temperature.exp()
    slow = beta * contrast(query, key, temperature.detach(), without_own=False)
    slow = slow + beta * contrast(query.detach(), key.detach(), temperature, without_own=numbered)
    adjusted = scale * logits + log_prior
    slow = slow + gamma * mean(
        [nats(dict(enumerate(adjusted[b])), int(target[b])) for b in range(batch)]
    )
    if taught:
        student = (scale * logits / t).softmax(1)
        mentor = (scale * teacher / t).softmax(1)
        divergence = [
            sum(mentor[b, c] * (mentor[b, c] / student[b, c]).log() for c in range(num_classes))
            for b in range(batch)
        ]
        slow = slow + alpha * t**2 * mean(divergence)
    assert_same(fast, slow, query, key, logits, log_temperature)


@quick
@given(seeds, sizes, st.integers(1, 3), sizes)
def test_balanced_contrastive(seed: int, batch: int, views: int, num_classes: int) -> None:
    draw, temperature = Draw(seed), 0.3
    features, prototypes = draw.unit(batch, views, 3), draw.unit(num_classes, 3)
    target = draw.integers(num_classes, batch)
    fast = losses.balanced_contrastive_loss(features, prototypes, target, temperature=temperature)
    members = [(int(target[b]), features[b, v]) for b in range(batch) for v in range(views)]
    members += list(enumerate(prototypes))
    slow = []
    for i, (y, anchor) in enumerate(members[: batch * views]):
        others = [
            (c, (anchor * m).sum() / temperature) for a, (c, m) in enumerate(members) if a != i
        ]
        total = []
        for j in range(num_classes):
            mine = [s for c, s in others if c == j]
            total.append(log_sum_exp(mine) - math.log(len(mine)))
        positive = [s for c, s in others if c == y]
        slow.append(mean([log_sum_exp(total) - s for s in positive]))
    assert_same(fast, mean(slow), features, prototypes)


@quick
@given(seeds, sizes, st.integers(1, 3), sizes)
def test_supervised_contrastive(seed: int, batch: int, views: int, num_classes: int) -> None:
    draw, temperature = Draw(seed), 0.3
    features, target = draw.unit(batch, views, 3), draw.integers(num_classes, batch)
    fast = losses.supervised_contrastive_loss(features, target, temperature=temperature)
    members = [(int(target[b]), features[b, v]) for b in range(batch) for v in range(views)]
    slow = []
    for i, (y, anchor) in enumerate(members):
        others = [
            (c, (anchor * m).sum() / temperature) for a, (c, m) in enumerate(members) if a != i
        ]
        positive = [s for c, s in others if c == y]
        if positive:
            total = log_sum_exp([s for _, s in others])
            slow.append(mean([total - s for s in positive]))
        else:
            slow.append(0 * features.sum())
    assert_same(fast, mean(slow), features)


@quick
@given(seeds, sizes, st.integers(0, 4), sizes, st.sampled_from([0.0, 1.0, 0.5]))
def test_paco(seed: int, batch: int, queue_size: int, num_classes: int, gamma: float) -> None:
    draw, temperature, alpha, beta = Draw(seed), 0.3, 0.05, 0.8
    features, logits = draw.unit(2 * batch + queue_size, 3), draw.normal(batch, num_classes)
    log_prior, target = draw.log_prior(num_classes), draw.integers(num_classes, batch)
    queue = draw.integers(num_classes + 1, queue_size) - 1  # -1: slot never filled
    labels = torch.cat([target, target, queue])
    fast = losses.paco_loss(
        features,
        labels,
        logits,
        log_prior,
        queue_size=queue_size,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        temperature=temperature,
    )
    slow = []
    for b in range(batch):
        centres = logits[b] + (log_prior.exp() + 1e-9).log()
        others = [
            (int(labels[k]), (features[b] * features[k]).sum() / temperature)
            for k in range(len(features))
            if k != b and labels[k] >= 0
        ]
        terms = list(centres) + [s + math.log(gamma) for _, s in others if gamma > 0]
        positive = [(beta, centres[target[b]])]
        positive += [(alpha, s) for c, s in others if c == target[b]]
        weight = sum(w for w, _ in positive)
        slow.append(log_sum_exp(terms) - sum(w * s for w, s in positive) / weight)
    assert_same(fast, mean(slow), features, logits)


@quick
@given(seeds, sizes, sizes, st.sampled_from(["column", "sample"]))
def test_lade_regularizer(seed: int, batch: int, num_classes: int, prior_of: str) -> None:
    draw, remine_lambda = Draw(seed), 0.3
    logits, target = draw.normal(batch, num_classes), draw.integers(num_classes, batch)
    log_prior = draw.log_prior(num_classes)
    fast = losses.lade_regularizer(
        logits, target, log_prior, remine_lambda=remine_lambda, prior_of=prior_of
    )
    prior = log_prior.exp()
    slow = torch.zeros((), dtype=torch.float64)
    for c in range(num_classes):
        mine = [logits[i, c] for i in range(batch) if target[i] == c]
        terms = []
        for i in range(batch):
            of = c if prior_of == "column" else int(target[i])
            shift = math.log(1 / num_classes + 1e-9) - math.log(prior[of] + 1e-9)
            terms.append(logits[i, c] + shift)
        spread = log_sum_exp(terms) - math.log(batch)
        slow = slow + prior[c] * (spread + remine_lambda * spread**2)
        if mine:
            slow = slow - prior[c] * sum(mine) / (len(mine) + 1e-8)
    assert_same(fast, slow, logits)


@quick
@given(seeds, sizes, sizes, st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_logit_adjusted_and_focal(seed: int, batch: int, num_classes: int, strength: float) -> None:
    draw = Draw(seed)
    logits, target = draw.normal(batch, num_classes), draw.integers(num_classes, batch)
    log_prior = draw.log_prior(num_classes)
    adjusted, focal = [], []
    for b in range(batch):
        row = {c: logits[b, c] + strength * log_prior[c] for c in range(num_classes)}
        adjusted.append(nats(row, int(target[b])))
        plain = nats(dict(enumerate(logits[b])), int(target[b]))
        focal.append((1 - (-plain).exp()) ** strength * plain)
    fast = losses.logit_adjusted_loss(logits, target, log_prior, tau=strength)
    assert_same(fast, mean(adjusted), logits)
    if num_classes > 1:  # with one class both sides are 0, the slow one with a slope of NaN
        assert_same(losses.focal_loss(logits, target, gamma=strength), mean(focal), logits)


@quick
@given(seeds, sizes, sizes)
def test_ldam_and_distillation(seed: int, batch: int, num_classes: int) -> None:
    draw = Draw(seed)
    logits, target = draw.normal(batch, num_classes), draw.integers(num_classes, batch)
    counts = draw.integers(50, num_classes) + 1
    slow = []
    for b in range(batch):
        y = int(target[b])
        margin = 10.0 * 0.4 * (int(counts.min()) / int(counts[y])) ** 0.25
        row = {c: logits[b, c] - (margin if c == y else 0) for c in range(num_classes)}
        slow.append(nats(row, y))
    fast = losses.ldam_loss(logits, target, counts, max_margin=0.4, scale=10.0)
    assert_same(fast, mean(slow), logits)

    teacher, t = draw.normal(batch, num_classes).detach(), 2.0
    slow = []
    for b in range(batch):
        u, s = (teacher[b] / t).softmax(0), (logits[b] / t).log_softmax(0)
        slow.append(t**2 * sum(u[c] * (u[c].log() - s[c]) for c in range(num_classes)))
    fast = losses.distillation_loss(logits, teacher, temperature=t)
    assert_same(fast, mean(slow), logits)


@quick
@given(seeds, sizes, sizes)
def test_dbm(seed: int, batch: int, num_classes: int) -> None:
    draw = Draw(seed)
    logits, target = draw.normal(batch, num_classes), draw.integers(num_classes, batch)
    counts = draw.integers(50, num_classes) + 1
    prior, scale = counts.double() / counts.sum(), 10.0
    slow = []
    for b in range(batch):
        y, row = int(target[b]), {c: logits[b, c] for c in range(num_classes)}
        cosine = row[y] / scale
        margin = 0.4 * int(counts.min()) / int(counts[y])
        if int(logits[b].argmax()) != y:
            margin = margin + margin * (1 - cosine) / 2
        row[y] = scale * (cosine.acos() + margin).cos()
        slow.append(nats({c: row[c] + prior[c].log() for c in row}, y))
    fast = losses.dbm_loss(logits, target, counts, max_margin=0.4, scale=scale)
    if num_classes > 1:  # with one class both sides are 0, the slow one with a slope of NaN
        assert_same(fast, mean(slow), logits)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 1 - 1e-12])
def test_class_weights(beta: float) -> None:
    counts = [500, 50, 5]
    rare = [1 / sum(beta**i for i in range(n)) for n in counts]
    expected = torch.tensor([3 * w / sum(rare) for w in rare], dtype=torch.float64)
    weight = losses.effective_number_weight(torch.tensor(counts), beta=beta)
    torch.testing.assert_close(weight, expected, rtol=1e-9, atol=0)
    inverse = losses.inverse_frequency_weight(torch.tensor(counts))
    torch.testing.assert_close(inverse * torch.tensor(counts), inverse[0].expand(3) * 500)
