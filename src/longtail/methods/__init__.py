"""Training methods: one file each, the whole step on one screen."""

from longtail.methods.base import Method
from longtail.methods.create import create_method, find_method, method_names
from longtail.methods.gml import GML
from longtail.methods.plain import PlainClassifier

__all__ = [
    "GML",
    "Method",
    "PlainClassifier",
    "create_method",
    "find_method",
    "method_names",
]
