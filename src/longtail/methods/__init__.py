"""Training methods, with the whole step of each in one file."""

from longtail.methods.base import Method, MixPartner, smooth_labels
from longtail.methods.bcl import BCL
from longtail.methods.create import create_method, find_method, method_names
from longtail.methods.gml import GML
from longtail.methods.paco import PaCo
from longtail.methods.plain import PlainClassifier
from longtail.methods.proco import ProCo
from longtail.methods.retrained import CRT, LWS, TauNorm
from longtail.methods.supcon import SupCon, SupConFeatures

__all__ = [
    "BCL",
    "CRT",
    "GML",
    "LWS",
    "Method",
    "MixPartner",
    "PaCo",
    "PlainClassifier",
    "ProCo",
    "SupCon",
    "SupConFeatures",
    "TauNorm",
    "create_method",
    "find_method",
    "method_names",
    "smooth_labels",
]
