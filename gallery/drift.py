# order: 6
# %% [markdown]
# # Drift: follow the class prior of a stream
#
# `PriorTracker` updates the class prior with every batch of logits, without labels and without keeping
# the data. Here a rare class becomes frequent over a week; the predictions follow.

# %%
import torch
from matplotlib import pyplot as plt

from longtail import ClassPrior, shift

generator = torch.Generator().manual_seed(0)
trained = ClassPrior([900, 90, 10])
centres = torch.tensor([[0.0, 0.0], [2.5, 0.0], [0.0, 2.5]])


def batch(prior, count):
    labels = torch.multinomial(prior, count, replacement=True, generator=generator)
    x = centres[labels] + torch.randn(count, 2, generator=generator)
    return -torch.cdist(x, centres).square() / 2 + trained.log_prior.float(), labels


# %%
tracker = shift.PriorTracker(expressed=trained, half_life=1000)
start, end = (
    trained.probabilities,
    torch.tensor([0.4, 0.1, 0.5], dtype=torch.float64),
)
truth, followed, right = [], [], {"as trained": [], "tracked": []}
for hour in range(168):
    progress = min(max((hour - 48) / 48, 0), 1)
    now = (1 - progress) * start + progress * end
    logits, labels = batch(now, 100)
    tracked = shift.adjust(
        logits, trained, tracker.prior
    )  # before the batch is seen
    for name, scores in (("as trained", logits), ("tracked", tracked)):
        right[name] += (scores.argmax(1) == labels).double().tolist()
    tracker.update(logits)
    truth.append(now)
    followed.append(tracker.prior)
for name, values in right.items():
    print(
        f"{name}: accuracy in the last two days {torch.tensor(values[-4800:]).mean():.3f}"
    )

# %%
for c, colour in enumerate(("tab:blue", "tab:orange", "tab:green")):
    plt.plot([p[c] for p in followed], color=colour, label=f"class {c}")
    plt.plot([p[c] for p in truth], "--", color=colour)
plt.xlabel("hour (dashed: truth)")
plt.ylabel("share")
plt.legend()
