"""Features of images: one engine for all uses of a network in evaluation mode."""

from longtail.features.cache import FeatureCache, fingerprint
from longtail.features.engine import Chunk, extract, outputs
from longtail.features.memory import keep_freed_memory
from longtail.features.network import Network, Precision, fastest

__all__ = [
    "Chunk",
    "FeatureCache",
    "Network",
    "Precision",
    "extract",
    "fastest",
    "fingerprint",
    "keep_freed_memory",
    "outputs",
]
