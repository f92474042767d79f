# order: 8
# %% [markdown]
# # A loss of your own
#
# A loss of logits and class indices is a subclass of `ClassificationLoss`: it takes the class prior and
# returns the loss of each sample. Checks, precision, ignored samples and the mean are handled by
# the base class. Here the margin is larger for rare classes.

# %%
import torch
from matplotlib import pyplot as plt
from torch.nn.functional import cross_entropy, one_hot

import longtail
from longtail import ClassPrior
from longtail.losses import ClassificationLoss
from longtail.metrics import per_class_recall


class MarginLoss(ClassificationLoss):
    """Cross-entropy with a margin on the logit of the target, larger for rare classes.

    Args:
        prior: class prior of the training set.
        largest: margin of the rarest class, in logits.
    """

    expresses = "source"

    def __init__(self, prior: ClassPrior, *, largest: float = 3.0) -> None:
        super().__init__(prior)
        rarity = prior.counts.double().rsqrt()
        self.register_buffer("margin", largest * rarity / rarity.max())

    def per_sample(
        self, logits: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        margins = one_hot(target, logits.shape[1]) * self.margin.to(logits)
        return cross_entropy(logits - margins, target, reduction="none")


# %% [markdown]
# In a file `my_paper.py` it can be used on the command line: `longtail train digits-lt --method
# my_paper.MarginLoss --method.loss.largest 2`. In a loop it is an ordinary module:

# %%
data = longtail.data.load(longtail.data.DataConfig("digits-lt", imbalance=100))
x, y = data.train.images[:, 0].flatten(1) / 255, data.train.labels
x_test, y_test = data.test.images[:, 0].flatten(1) / 255, data.test.labels
recall = {}
for loss in (longtail.losses.CrossEntropyLoss(data.prior), MarginLoss(data.prior)):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        loss(model(x), y).backward()
        optimiser.step()
    name = type(loss).__name__
    recall[name] = per_class_recall(model(x_test).detach(), y_test)
    print(f"{name}: balanced accuracy {recall[name].mean():.3f}")

# %%
for name, values in recall.items():
    plt.plot(values, marker="o", label=name)
plt.xticks(
    range(10), [f"{c}\n{n}" for c, n in enumerate(data.prior.counts.tolist())]
)
plt.xlabel("digit, and number of training images")
plt.ylabel("recall")
plt.legend()
