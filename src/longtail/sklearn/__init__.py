"""scikit-learn estimators for embeddings and feature tables with rare classes."""

from longtail.sklearn.long_tail import LongTailClassifier
from longtail.sklearn.prior_adjusted import PriorAdjustedClassifier

__all__ = ["LongTailClassifier", "PriorAdjustedClassifier"]
