"""The methods for fitting a head, and the names of their settings."""

import inspect
from collections.abc import Mapping
from typing import Any

from longtail.errors import InputError
from longtail.losses import ClassificationLoss
from longtail.methods import find_method, method_names
from longtail.names import nearest
from longtail.prior import ClassPrior
from longtail.probe.contrast import ContrastNetwork, train_contrast
from longtail.probe.mixture import Mixture

# Methods with more than a linear head, and the callables whose keywords are their settings.
NETWORKS: Mapping[str, tuple[Any, ...]] = {
    "gml": (Mixture,),
    "bcl": (ContrastNetwork, train_contrast),
}


def check_method(method: Any, settings: Mapping[str, Any]) -> None:
    """Checks the name of a method and the names of its settings.

    Args:
        method: the name of a classification loss of `longtail.losses`, `gml`, `bcl`, or the import
            path of a ClassificationLoss.
        settings: keyword arguments of the loss, of `Mixture`, or of `ContrastNetwork` and
            `train_contrast`.

    Raises:
        ValueError: if the method or one of the settings is unknown.

    Examples:
        >>> check_method("gml", {"width": 64})
    """
    sources = NETWORKS.get(method) or (_loss_class(method),)
    known = {
        name
        for source in sources
        for name, parameter in inspect.signature(source).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY or (method not in NETWORKS and name != "prior")
    }
    if not settings.keys() <= known:
        raise InputError(
            f"method_params must be settings of {method!r}, {sorted(known)}, "
            f"got {sorted(settings.keys() - known)}"
        )


def create_loss(method: str, prior: ClassPrior, settings: Mapping[str, Any]) -> ClassificationLoss:
    """The loss of a linear method, at the end of its schedule."""
    loss = _loss_class(method)(prior, **settings)
    loss.set_progress(1.0)
    return loss


def _loss_class(method: Any) -> type[ClassificationLoss]:
    losses = [name for name, item in method_names().items() if issubclass(item, ClassificationLoss)]
    if method in losses or (isinstance(method, str) and "." in method):
        found = find_method(method)
        if issubclass(found, ClassificationLoss):
            return found
    known = sorted([*losses, *NETWORKS])
    hint = nearest(str(method), known)
    raise InputError(
        f"method must be one of {known} or the import path of a ClassificationLoss, "
        f"got {method!r}{hint}"
    )
