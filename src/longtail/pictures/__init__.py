"""Training on a user's own images: features and a head first, then fine-tuning if it pays."""

from longtail.pictures.advise import Advice, advise
from longtail.pictures.compare import CANDIDATES, Candidate, Row, cross_validate, recommend
from longtail.pictures.settings import FINE_TUNING, OPEN, resolve
from longtail.pictures.train import asked_settings, train

__all__ = [
    "CANDIDATES",
    "FINE_TUNING",
    "OPEN",
    "Advice",
    "Candidate",
    "Row",
    "advise",
    "asked_settings",
    "cross_validate",
    "recommend",
    "resolve",
    "train",
]
