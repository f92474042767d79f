# order: 4
# %% [markdown]
# # One model, several class priors
#
# A model that was trained on 90 % healthy leaves is used in a greenhouse where half are ill. Its logits
# express the prior of the training set; adding `log target - log training` adapts it to the greenhouse.
# Nothing is trained again.

# %%
import torch
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression

from longtail import ClassPrior, shift

generator = torch.Generator().manual_seed(0)
centres = torch.tensor([[0.0, 0.0], [2.0, 0.5], [1.0, 2.0]])


def leaves(counts):
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    return centres[labels] + torch.randn(
        len(labels), 2, generator=generator
    ), labels


x, y = leaves([1800, 150, 50])
prior = ClassPrior.from_labels(y)
model = LogisticRegression().fit(x, y)

# %%
greenhouse = [0.4, 0.3, 0.3]
x_test, y_test = leaves([1200, 900, 900])
logits = torch.tensor(model.decision_function(x_test))
adjusted = shift.adjust(logits, expressed=prior, target=greenhouse)
for name, scores in (("as trained", logits), ("adjusted", adjusted)):
    right = scores.argmax(1) == y_test
    nll = torch.nn.functional.cross_entropy(scores, y_test)
    print(
        f"{name}: accuracy {right.double().mean():.3f}, negative log-likelihood {nll:.3f}"
    )

# %% [markdown]
# The regions of the two rare classes grow to the size that is right where these classes are frequent.

# %%
side = torch.linspace(-3, 5, 200)
grid = torch.cartesian_prod(side, side)
raw = torch.tensor(model.decision_function(grid))
figure, axes = plt.subplots(1, 2, figsize=(8, 4), sharey=True)
for axis, scores, title in (
    (axes[0], raw, "prior of the training set"),
    (axes[1], shift.adjust(raw, prior, greenhouse), "prior of the greenhouse"),
):
    regions = scores.argmax(1).view(200, 200).T
    axis.contourf(side, side, regions, levels=[-0.5, 0.5, 1.5, 2.5], alpha=0.3)
    axis.scatter(*x_test[::10].T, c=y_test[::10], s=5)
    axis.set_title(title)
