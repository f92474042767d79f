# order: 7
# %% [markdown]
# # Segmentation: small things that cross-entropy paints over
#
# Pixels are long-tailed, too: here sky and ground fill the picture, and a thin pole has 2 % of the
# pixels. `MapLoss` applies any classification loss to maps of logits, with the interface of
# segmentation libraries.

# %%
import torch
from matplotlib import pyplot as plt
from torch import nn

from longtail import ClassPrior, losses
from longtail.integrations.segmentation import MapLoss

colours = torch.tensor([[0.4, 0.6, 0.9], [0.4, 0.4, 0.3], [0.5, 0.5, 0.5]])


def scenes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 32, 48, dtype=torch.int64)
    for mask in masks:
        mask[torch.randint(14, 22, (), generator=generator) :] = 1
        left = torch.randint(4, 44, (), generator=generator)
        mask[8:26, left : left + 2] = 2
    masks[:, :, :1] = 255  # a border without a label
    images = colours[masks.clamp(max=2)].movedim(-1, 1)
    return images + 0.15 * torch.randn(images.shape, generator=generator), masks


images, masks = scenes(12, 0)
test, truth = scenes(12, 1)
prior = ClassPrior(torch.bincount(masks[masks != 255], minlength=3))
print("pixels of each class:", prior.counts.tolist())

# %%


def network():
    torch.manual_seed(0)
    layers = []
    for width in (3, 16, 16):
        layers += [nn.Conv2d(width, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 3, 1))


found = {}
for name, loss in (
    ("cross-entropy", losses.CrossEntropyLoss(prior)),
    ("logit adjustment", losses.LogitAdjustedLoss(prior)),
):
    model, map_loss = network(), MapLoss(loss, ignore_index=255)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        map_loss(model(images), masks).backward()
        optimiser.step()
    with torch.no_grad():
        found[name] = model.eval()(test).argmax(1)
    recall = [
        float((found[name][truth == c] == c).float().mean()) for c in range(3)
    ]
    print(name, "sky, ground, pole found:", [round(value, 2) for value in recall])

# %%
figure, axes = plt.subplots(1, 4, figsize=(11, 2.4))
panels = {
    "picture": test[0].movedim(0, -1).clamp(0, 1),
    "truth": truth[0].clamp(max=2),
}
for axis, (title, panel) in zip(
    axes, (panels | {k: v[0] for k, v in found.items()}).items()
):
    axis.imshow(panel, vmin=0, vmax=2)
    axis.set_title(title)
    axis.axis("off")
