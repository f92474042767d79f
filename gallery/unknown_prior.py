# order: 5
# %% [markdown]
# # An unknown class prior, with intervals
#
# The class prior where a model is used is rarely known. `estimate_prior` estimates it from
# unlabelled samples and a labelled validation set, gives intervals, and tests whether there is a
# shift at all.

# %%
import torch
from matplotlib import pyplot as plt

from longtail import ClassPrior, shift

generator = torch.Generator().manual_seed(0)
centres = 1.6 * torch.randn(5, 4, generator=generator)
trained = ClassPrior([5000, 1500, 500, 150, 50])


def samples(prior, count):
    labels = torch.multinomial(
        torch.as_tensor(prior), count, replacement=True, generator=generator
    )
    x = centres[labels] + torch.randn(count, 4, generator=generator)
    likelihood = -torch.cdist(x, centres).square() / 2
    return (
        likelihood + trained.log_prior
    ).float(), labels  # the logits of a trained model


validation, labels = samples(trained.probabilities, 2000)
truth = [0.1, 0.15, 0.2, 0.25, 0.3]
monday, monday_labels = samples(truth, 1000)

# %%
found = shift.estimate_prior(
    validation, labels, monday, expressed=trained, generator=generator
)
print("shifted:", found.shifted, " intervals to be relied on:", found.reliable)
for c in range(5):
    low, high = found.interval[c]
    print(
        f"class {c}: {found.prior[c]:.3f}, interval {low:.3f} to {high:.3f}, truth {truth[c]:.3f}"
    )
for name, scores in (
    ("as trained", monday),
    ("adjusted", shift.adjust(monday, trained, found.prior)),
):
    print(
        f"{name}: accuracy {(scores.argmax(1) == monday_labels).double().mean():.3f}"
    )

# %%
position = torch.arange(5)
below, above = (
    (found.prior - found.interval[:, 0]),
    (found.interval[:, 1] - found.prior),
)
plt.errorbar(
    position,
    found.prior,
    yerr=torch.stack([below, above]).clamp(min=0),
    fmt="o",
    label="estimate, 95 %",
)
plt.plot(position, truth, "x", color="black", label="truth")
plt.bar(position, trained.probabilities, alpha=0.3, label="training set")
plt.xticks(position)
plt.xlabel("class")
plt.ylabel("share")
plt.legend()
