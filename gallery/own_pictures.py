# order: 1
# %% [markdown]
# # A folder of your own pictures
#
# A folder has a sub-folder of pictures for each class, and most pictures belong to a few classes.
# Here they are scikit-learn's handwritten digits, 64 pixels wide, from 60 zeros down to three
# nines. With your own pictures, only the last two steps are needed.

# %%
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)
for digit in range(10):
    rows = np.flatnonzero(labels == digit)
    count = int(60 * 20 ** (-digit / 9))
    for split, chosen in (("train", rows[:count]), ("test", rows[100:130])):
        folder = Path("digits") / split / str(digit)
        folder.mkdir(parents=True)
        for row in chosen:
            levels = (255 - images[row].reshape(8, 8) * 15).astype(np.uint8)
            Image.fromarray(levels).resize((64, 64)).save(folder / f"{row}.png")

# %% [markdown]
# `longtail.train` computes features of every picture with a pretrained network, and fits a
# classifier on them that uses the class counts. On the command line this is `longtail train
# digits`. Without `tune` and a method, it first compares methods by cross-validation, and
# fine-tunes the network if that fits into `--minutes`.

# %%
import longtail

data = {"source": "digits", "image_size": 64}
run = longtail.train(
    data, "logit_adjust", tune="head", out="runs/digits", verbose=False
)
plain = longtail.training.Run(
    "runs/digits/ce"
)  # cross-entropy on the same features
for one in (plain, run):
    shown = {
        group: round(one.metrics[group], 2)
        for group in ("accuracy", "medium", "few")
    }
    print(one.config["method"]["name"], shown)

# %% [markdown]
# If in doubt, cross-entropy predicts a frequent class. The rare digits, on the right, are lost.

# %%
from longtail.metrics import per_class_recall

width = 0.4
for offset, (name, one) in enumerate(
    (("cross-entropy", plain), ("logit adjustment", run))
):
    found = one.predictions()
    recall = per_class_recall(found.logits, found.labels)
    plt.bar(np.arange(10) + offset * width, recall, width, label=name)
counts = run.predictions().prior.counts.tolist()
plt.xticks(np.arange(10) + width / 2, [f"{d}\n{n}" for d, n in enumerate(counts)])
plt.xlabel("digit, and number of training pictures")
plt.ylabel("recall")
plt.legend()

# %% [markdown]
# `run.predict` classifies new pictures: paths, PIL images or arrays.

# %%
new = [min(Path(f"digits/test/{digit}").iterdir()) for digit in (0, 4, 7)]
for path, classes in run.predict(new).top(2):
    print(path, [(name, round(probability, 2)) for name, probability in classes])
