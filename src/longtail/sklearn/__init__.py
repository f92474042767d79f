"""scikit-learn estimators for embeddings and feature tables with rare classes."""

from longtail.sklearn.long_tail import LongTailClassifier
from longtail.sklearn.prior_adjusted import PriorAdjustedClassifier
from longtail.sklearn.tuned_prior import TunedPriorClassifierCV

__all__ = ["LongTailClassifier", "PriorAdjustedClassifier", "TunedPriorClassifierCV"]
