"""How the golden values of this folder were made; not run by the tests.

In an environment of its own: pip install abstention==0.1.3.1 quapy==0.2.3 cvxpy; python make.py
"""

from pathlib import Path

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def case(seed, classes, source, target):
    # Here, because pytest imports this file and its own environment has neither package.
    from abstention.calibration import TempScaling, VectorScaling
    from abstention.label_shift import (
        BBSEImbalanceAdapter,
        EMImbalanceAdapter,
        RLLSImbalanceAdapter,
    )
    from quapy.method.aggregative import EMQ, BBSEhard, BBSEsoft

    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, 4)) * 1.2
    p = 0.7 ** np.arange(classes)
    p /= p.sum()
    q = p[::-1]

    def draw(mix, size):
        labels = np.concatenate([np.arange(classes), rng.choice(classes, size - classes, p=mix)])
        x = means[labels] + rng.normal(size=(size, 4))
        likelihood = -0.5 * ((x[:, None] - means) ** 2).sum(axis=2)
        return 1.6 * (likelihood + np.log(p)) + 0.3 * np.arange(classes), labels

    source_logits, source_labels = draw(p, source)
    target_logits, _ = draw(q, target)
    hot = np.eye(classes)[source_labels]
    mix = hot.mean(axis=0)
    out = {
        "source_logits": source_logits,
        "source_labels": source_labels,
        "target_logits": target_logits,
        "mix": mix,
    }
    fits = {
        "bcts": TempScaling(bias_positions="all"),
        "vs": VectorScaling(),
    }
    tight = {"options": {"ftol": 1e-14, "gtol": 1e-10, "maxiter": 10000}}
    kept = None
    for name, factory in fits.items():
        factory.lbfgs_kwargs = tight
        fitted = factory(softmax(source_logits), hot, posterior_supplied=True)
        a, b = fitted(softmax(source_logits)), fitted(softmax(target_logits))
        out[f"{name}_source"] = a
        kept = (a, b) if name == "bcts" else kept
        em = EMImbalanceAdapter(
            estimate_priors_from_valid_labels=True, tolerance=1e-13, max_iterations=100_000
        )
        found = em(tofit_initial_posterior_probs=b, valid_posterior_probs=a, valid_labels=hot)
        out[f"{name}_em"] = found.multipliers * mix
        for soft in (False, True):
            for kind, adapter in (
                ("bbse", BBSEImbalanceAdapter(soft=soft)),
                ("rlls", RLLSImbalanceAdapter(soft=soft)),
            ):
                found = adapter(
                    valid_labels=hot, tofit_initial_posterior_probs=b, valid_posterior_probs=a
                )
                prior = found.multipliers * mix
                out[f"{name}_{kind}_{'soft' if soft else 'hard'}"] = prior / prior.sum()
    a, b = kept
    out["quapy_em"] = EMQ.EM(mix, b, epsilon=1e-13)[0]
    every = np.arange(classes)
    for name, joint, mean in (
        ("soft", BBSEsoft.getConfusionJointProb(every, source_labels, a), b.mean(axis=0)),
        (
            "hard",
            BBSEhard.getConfusionJointProb(every, source_labels, a.argmax(axis=1)),
            np.bincount(b.argmax(axis=1), minlength=classes) / len(b),
        ),
    ):
        found = BBSEhard.solve_importance_weights(joint, mean, solver="exact-raise")
        prior = np.clip(found, 0, None) * mix
        out[f"quapy_bbse_{name}"] = prior / prior.sum()
    return out


if __name__ == "__main__":
    here = Path(__file__).parent
    for seed, (classes, source, target) in enumerate([(3, 200, 150), (6, 600, 400)]):
        found = case(seed, classes, source, target)
        for k, v in found.items():
            if v.ndim == 1 and len(v) == classes:
                print(seed, k, v.round(4))
        np.savez_compressed(here / f"estimators_{seed}.npz", **found)
