"""Hugging Face Trainer and pipelines, on a tiny transformer that is made from its configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from longtail import ClassPrior
from longtail.integrations.huggingface import (
    AdjustedPipeline,
    PriorCallback,
    class_prior,
    group_metrics,
    trainer_loss,
)
from longtail.integrations.record import PriorRecord
from longtail.losses import (
    CrossEntropyLoss,
    GMLLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    ReweightedLoss,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
WORDS = 4
NAMES = ("common", "seldom", "rare")
COUNTS = (150, 30, 10)


def made_text(counts: tuple[int, ...], seed: int) -> datasets.Dataset:
    """Sequences of eight tokens, one in two that of their class, the others that of any class."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    for label, count in enumerate(counts):
        for _ in range(count):
            tokens = torch.randint(0, 3, (8,), generator=generator)
            own = torch.rand(8, generator=generator) < 0.5
            rows.append({"input_ids": (tokens.where(~own, label) + 1).tolist(), "label": label})
    features = datasets.Features(
        {
            "input_ids": datasets.List(datasets.Value("int64")),
            "label": datasets.ClassLabel(names=list(NAMES)),
        }
    )
    return datasets.Dataset.from_list(rows, features=features)


def tiny_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config)


def make_trainer(folder: Path, loss: Any, record: PriorRecord, **options: Any) -> Any:
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 16,
        "num_train_epochs": 4,
        "learning_rate": 5e-3,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": True,
        "seed": 0,
    } | options
    return transformers.Trainer(
        model=tiny_model(),
        args=transformers.TrainingArguments(**settings),
        train_dataset=made_text(COUNTS, 0),
        eval_dataset=made_text((40, 40, 40), 1),
        compute_loss_func=loss,
        compute_metrics=group_metrics(record.prior),
        callbacks=[PriorCallback(record)],
    )


@pytest.fixture
def prior() -> ClassPrior:
    return class_prior(made_text(COUNTS, 0))


def test_class_prior_counts_the_labels(prior: ClassPrior) -> None:
    assert prior.counts.tolist() == list(COUNTS)
    with pytest.raises(ValueError, match=r"column .*'labels'"):
        class_prior(made_text(COUNTS, 0), "labels")
    with pytest.raises(ValueError, match="above zero for every class"):
        class_prior(made_text((3, 2, 0), 0))  # a ClassLabel without a sample


def test_the_trainer_computes_the_loss_of_a_plain_loop(tmp_path: Path, prior: ClassPrior) -> None:
    loss = LogitAdjustedLoss(prior)
    trainer = make_trainer(tmp_path, trainer_loss(loss), PriorRecord(prior, "uniform"))
    rows = made_text(COUNTS, 0).select(range(140, 172))
    batch = {
        "input_ids": torch.tensor(rows["input_ids"][:]),
        "labels": torch.tensor(rows["label"][:]),
    }
    logits = trainer.model.eval()(input_ids=batch["input_ids"]).logits
    ours = loss(logits, batch["labels"])
    theirs = trainer.compute_loss(trainer.model, dict(batch))
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-6)


def test_accumulated_batches_have_the_gradient_of_one(tmp_path: Path, prior: ClassPrior) -> None:
    """Unequal batches, 10 and 6 samples: the sum of both is the mean over 16."""
    loss = LogitAdjustedLoss(prior)
    compute = trainer_loss(loss)
    logits, labels = torch.randn(16, 3), torch.arange(16) % 3
    pieces = [
        compute({"logits": logits[part]}, labels[part], num_items_in_batch=16)
        for part in (slice(0, 10), slice(10, 16))
    ]
    torch.testing.assert_close(sum(pieces), loss(logits, labels))


@pytest.mark.parametrize("size", [1, 2, 16])
def test_class_weights_in_accumulated_batches(size: int, prior: ClassPrior) -> None:
    """The gradient of a sample is in proportion to the weight of its class."""
    loss = ReweightedLoss(prior)
    labels = torch.tensor([0] * 12 + [1, 1, 2, -100])
    logits = torch.zeros(16, 3, requires_grad=True)
    sum(
        trainer_loss(loss)({"logits": logits[part]}, labels[part], num_items_in_batch=15)
        for part in torch.arange(16).split(size)
    ).backward()
    weight = loss.class_weight()
    total = weight[labels[:15]].sum() if size == 16 else 15 * prior.probabilities @ weight
    slope = logits.grad[:15].gather(1, labels[:15, None]).squeeze(1)
    expected = -2 / 3 * weight[labels[:15]] / total
    torch.testing.assert_close(slope, expected.float())
    assert not logits.grad[15].any()


def test_class_weights_without_accumulation_are_those_of_a_plain_loop(prior: ClassPrior) -> None:
    loss = ReweightedLoss(prior)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 2, -100])
    for items in (None, 5, torch.tensor(5)):
        found = trainer_loss(loss)({"logits": logits}, labels, num_items_in_batch=items)
        torch.testing.assert_close(found, loss(logits, labels))
    none = trainer_loss(loss)({"logits": logits[5:]}, labels[5:], num_items_in_batch=5)
    assert none == 0


def test_class_weights_of_a_loss_of_ones_own_in_float32(prior: ClassPrior) -> None:
    class Own(ReweightedLoss):
        def class_weight(self) -> torch.Tensor:
            return super().class_weight().float()

    logits, labels = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 2, 2])
    found = [
        trainer_loss(kind(prior))({"logits": logits}, labels, 12) for kind in (Own, ReweightedLoss)
    ]
    torch.testing.assert_close(*found)


def test_other_losses_are_refused(prior: ClassPrior) -> None:
    for loss in (GMLLoss(prior), torch.nn.CrossEntropyLoss()):
        message = f"loss of trainer_loss must be a ClassificationLoss, got {type(loss).__name__}"
        with pytest.raises(ValueError, match=message):
            trainer_loss(loss)  # type: ignore[arg-type]


def test_the_rare_class_is_found_more_often_than_with_the_default_loss(
    tmp_path: Path, prior: ClassPrior
) -> None:
    found = []
    for loss in (None, trainer_loss(LogitAdjustedLoss(prior))):
        trainer = make_trainer(tmp_path, loss, PriorRecord(prior, "uniform", NAMES))
        trainer.train()
        found.append(trainer.evaluate())
    plain, adjusted = found
    assert adjusted["eval_few"] > plain["eval_few"]
    assert adjusted["eval_balanced_accuracy"] > plain["eval_balanced_accuracy"] + 0.1


def test_balanced_batches_of_one_and_two_processes(
    tmp_path: Path, run_blocks: Callable[[str, dict[str, Any]], dict[str, Any]]
) -> None:
    train_set = made_text(COUNTS, 0)
    options = {"report_to": [], "use_cpu": True, "per_device_train_batch_size": 16}
    trainer = run_blocks("Hugging Face Trainer", {})["BalancedTrainer"](
        model=tiny_model(),
        args=transformers.TrainingArguments(str(tmp_path), **options),
        train_dataset=train_set,
        data_collator=lambda rows: torch.tensor([row["label"] for row in rows]),
    )
    drawn = torch.cat([*trainer.get_train_dataloader()])
    assert drawn.bincount().min() > len(train_set) / 3 * 0.7
    whole = [*trainer._get_train_sampler()]
    loaders = [
        prepare_data_loader(
            DataLoader(range(len(train_set)), 10, sampler=trainer._get_train_sampler()),
            num_processes=2,
            process_index=rank,
        )
        for rank in range(2)
    ]
    parts = [torch.cat([*loader]).tolist() for loader in loaders]
    assert sorted(parts[0] + parts[1]) == sorted(
        whole + whole[:10]
    )  # 190 draws, in 20 full batches


def test_a_pipeline_predicts_under_another_prior(tmp_path: Path, prior: ClassPrior) -> None:
    trainer = make_trainer(
        tmp_path, trainer_loss(CrossEntropyLoss(prior)), PriorRecord(prior, "source", NAMES)
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert model.config.longtail["class_names"] == list(NAMES)
    tokens = torch.tensor([made_text((1, 1, 1), 2)["input_ids"][2]])
    logits = model.eval()(input_ids=tokens).logits[0].detach()

    class Pipeline:  # what a text pipeline does, without a tokeniser
        def __init__(self) -> None:
            self.model = model

        def __call__(self, inputs: Any, top_k: int, function_to_apply: str) -> Any:
            assert (top_k, function_to_apply) == (3, "none")
            return [
                {"label": name, "score": float(z)} for name, z in zip(NAMES, logits, strict=True)
            ]

    found = AdjustedPipeline(Pipeline(), "uniform")("a text")
    expected = (logits - prior.log_prior.float()).softmax(0)
    assert {row["label"]: row["score"] for row in found} == pytest.approx(
        dict(zip(NAMES, expected.tolist(), strict=True)), abs=1e-6
    )
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)
    model.config.longtail = None
    with pytest.raises(ValueError, match="'longtail' entry"):
        AdjustedPipeline(Pipeline())


@pytest.mark.parametrize("texts", [0, 1, 3])
def test_logits_that_look_like_probabilities(texts: int, prior: ClassPrior) -> None:
    class Pipeline:
        model = tiny_model()

        def __call__(self, inputs: list[str], top_k: int, function_to_apply: str) -> Any:
            scores = [*zip(NAMES, (0.2, 0.3, 0.5), strict=True)]
            return [[{"label": name, "score": z} for name, z in scores] for _ in inputs]

    Pipeline.model.config.longtail = PriorRecord(prior, "source", NAMES).to_dict()
    found = AdjustedPipeline(Pipeline(), "uniform")(["a text"] * texts)
    assert len(found) == texts
    assert all([row["label"] for row in rows] == ["rare", "seldom", "common"] for rows in found)


def test_a_real_pipeline(tmp_path: Path, prior: ClassPrior) -> None:
    """An image pipeline of a tiny network: its output has the adjusted probabilities."""
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        image_size=8, patch_size=4, num_labels=3, id2label=dict(enumerate(NAMES)),
        label2id={name: c for c, name in enumerate(NAMES)},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    model.config.longtail = PriorRecord(prior, "source", NAMES).to_dict()
    processor = transformers.ViTImageProcessor(size={"height": 8, "width": 8})
    pipeline = transformers.pipeline("image-classification", model=model, image_processor=processor)
    from PIL import Image

    picture = Image.new("RGB", (9, 7), (200, 30, 90))
    plain = {row["label"]: row["score"] for row in pipeline(picture, top_k=3)}
    raw = torch.tensor([plain[name] for name in NAMES], dtype=torch.float64)
    expected = raw / prior.probabilities
    found = AdjustedPipeline(pipeline, "uniform")([picture, picture])
    assert len(found) == 2
    got = {row["label"]: row["score"] for row in found[1]}
    assert [got[name] for name in NAMES] == pytest.approx(
        (expected / expected.sum()).tolist(), abs=1e-5
    )


def test_a_deferred_loss_is_told_the_progress(tmp_path: Path, prior: ClassPrior) -> None:
    loss = LDAMLoss(prior, deferred=0.5)
    callback = PriorCallback(PriorRecord(prior, "source"), loss)
    weights = []
    for step in (0, 24):
        state, args = (
            transformers.TrainerState(global_step=step, max_steps=48),
            make_trainer(tmp_path, None, callback.record).args,
        )
        callback.on_step_begin(args, state, None)
        weights.append(loss.class_weight())
    assert weights[0] is None
    assert weights[1] is not None


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ({"num_train_epochs": 2}, 24),
        ({"max_steps": 18}, 18),
        ({"num_train_epochs": 1, "gradient_accumulation_steps": 3}, 4),
    ],
)
def test_progress_of_epochs_and_of_steps(
    length: dict[str, int], steps: int, tmp_path: Path, prior: ClassPrior
) -> None:
    seen: list[float] = []
    loss = CrossEntropyLoss(prior)
    loss.set_progress = seen.append  # type: ignore[method-assign]
    record = PriorRecord(prior, "source")
    trainer = make_trainer(tmp_path, trainer_loss(loss), record, **length)  # 12 steps an epoch
    trainer.add_callback(PriorCallback(record, loss))
    trainer.train()
    assert seen == [step / steps for step in range(steps)]


def test_deferred_weights_come_in_a_single_epoch(tmp_path: Path, prior: ClassPrior) -> None:
    loss, record = LDAMLoss(prior), PriorRecord(prior, "source")
    trainer = make_trainer(tmp_path, trainer_loss(loss), record, num_train_epochs=1)
    trainer.add_callback(PriorCallback(record, loss))
    trainer.train()
    assert loss.weighting
