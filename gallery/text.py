# order: 3
# %% [markdown]
# # Text: which package is this sentence from?
#
# Text is naturally long-tailed. Here the texts are the first lines of the documentation of SciPy's
# functions, and the class is the sub-package: `stats` has many, `fft` few. The features are TF-IDF
# weights of words, sparse or reduced to 100 dense columns.

# %%
import importlib
import inspect

import numpy as np
from matplotlib import pyplot as plt
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from longtail.sklearn import LongTailClassifier, PriorAdjustedClassifier

packages = [
    "stats",
    "special",
    "signal",
    "linalg",
    "ndimage",
    "sparse",
    "optimize",
    "fft",
    "cluster.hierarchy",
    "integrate",
]
texts, labels = [], []
for package in packages:
    module = importlib.import_module(f"scipy.{package}")
    for name in sorted(module.__all__):
        words = (inspect.getdoc(getattr(module, name)) or "").split()[:40]
        if len(words) > 5:
            texts.append(" ".join(words))
            labels.append(package)
names, counts = np.unique(labels, return_counts=True)
print(dict(zip(names.tolist(), counts.tolist())))

# %%
x, x_test, y, y_test = train_test_split(
    texts, labels, test_size=0.5, stratify=labels, random_state=0
)
words = TfidfVectorizer(min_df=2)
dense = make_pipeline(words, TruncatedSVD(100, random_state=0))
plain = LogisticRegression(max_iter=1000)
models = {
    "sparse, logistic regression": make_pipeline(words, plain),
    "sparse, uniform prior": make_pipeline(
        words, PriorAdjustedClassifier(plain, "uniform")
    ),
    "sparse, logit adjustment": make_pipeline(
        words, LongTailClassifier("logit_adjust")
    ),
    "dense, logit adjustment": make_pipeline(
        dense, LongTailClassifier("logit_adjust", random_state=0)
    ),
}
recall = {}
order = names[np.argsort(-counts)]
for name, model in models.items():
    found = model.fit(x, y).predict(x_test)
    recall[name] = [np.mean(found[np.array(y_test) == c] == c) for c in order]
    print(f"{name}: balanced accuracy {balanced_accuracy_score(y_test, found):.2f}")

# %%
plt.figure(figsize=(8, 4))
for name, values in recall.items():
    plt.plot(values, marker="o", label=name)
plt.xticks(
    range(len(order)),
    [f"{c.split('.')[-1]}\n{n}" for c, n in zip(order, -np.sort(-counts))],
    fontsize=8,
)
plt.xlabel("class, and number of texts")
plt.ylabel("recall")
plt.legend()
