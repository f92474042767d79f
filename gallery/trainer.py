# order: 9
# %% [markdown]
# # Hugging Face Trainer
#
# Loss, metrics and prior are passed to `transformers.Trainer` by its own arguments. The network is
# a tiny BERT made from its configuration, so nothing is downloaded; the texts are made of four
# words.

# %%
import datasets
import torch
import transformers
from matplotlib import pyplot as plt

from longtail.integrations.huggingface import (
    PriorCallback,
    class_prior,
    group_metrics,
    trainer_loss,
)
from longtail.integrations.record import PriorRecord
from longtail.losses import LogitAdjustedLoss

names = ["invoice", "complaint", "fraud"]


def made_texts(counts, seed):
    """Eight words; every other one is that of the class."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for label, count in enumerate(counts):
        words = torch.randint(0, 3, (count, 8), generator=generator)
        own = torch.rand(count, 8, generator=generator) < 0.5
        rows += [
            {"input_ids": ids, "label": label}
            for ids in (words.where(~own, label) + 1).tolist()
        ]
    labels = datasets.ClassLabel(names=names)
    return datasets.Dataset.from_list(rows).cast_column("label", labels)


train_set, test_set = made_texts([200, 40, 10], 0), made_texts([50, 50, 50], 1)

# %%
prior = class_prior(train_set)
loss = LogitAdjustedLoss(prior)
results = {}
for name, chosen in (
    ("default", {}),
    ("logit adjustment", {"compute_loss_func": trainer_loss(loss)}),
):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    trainer = transformers.Trainer(
        model=transformers.BertForSequenceClassification(config),
        args=transformers.TrainingArguments(
            output_dir=name,
            num_train_epochs=8,
            per_device_train_batch_size=16,
            learning_rate=5e-3,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            use_cpu=True,
        ),
        train_dataset=train_set,
        eval_dataset=test_set,
        compute_metrics=group_metrics(prior),
        callbacks=[PriorCallback(PriorRecord(prior, loss.expresses, names), loss)],
        **chosen,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    results[name] = trainer.evaluate()
    print(
        name,
        {
            key: round(results[name][f"eval_{key}"], 2)
            for key in ("accuracy", "many", "few")
        },
    )

# %% [markdown]
# The model's configuration stores class names, counts and the prior, so that `AdjustedPipeline` can
# predict under another prior after `from_pretrained`.

# %%
print(trainer.model.config.longtail)
groups = ["many", "medium", "few"]
for offset, (name, figures) in enumerate(results.items()):
    plt.bar(
        [i + 0.4 * offset for i in range(3)],
        [figures[f"eval_{g}"] for g in groups],
        0.4,
        label=name,
    )
plt.xticks([i + 0.2 for i in range(3)], groups)
plt.ylabel("accuracy")
plt.legend()
