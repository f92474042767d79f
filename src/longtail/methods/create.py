"""Methods by name: those of the package, any classification loss, or a user's class."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import longtail.losses
from longtail.errors import InputError
from longtail.losses import ClassificationLoss
from longtail.methods.base import Method
from longtail.methods.plain import PlainClassifier
from longtail.models import Backbone, ImageClassifier
from longtail.names import imported, nearest_or_module
from longtail.prior import ClassPrior


def method_names(
    base: type[Method] = Method,
) -> dict[str, type[Method] | type[ClassificationLoss]]:
    """Every name that `--method` accepts: exported methods and exported classification losses.

    Args:
        base: base class of the task's methods, which its package exports.
    """
    methods = importlib.import_module(base.__module__.rpartition(".")[0])
    exported = [getattr(longtail.losses, name) for name in longtail.losses.__all__]
    exported += [getattr(methods, name) for name in methods.__all__]
    return {
        item.name: item
        for item in exported
        if inspect.isclass(item)
        and issubclass(item, base | ClassificationLoss)
        and not inspect.isabstract(item)
        and hasattr(item, "name")
    }


def find_method(name: str, base: type[Method] = Method) -> type[Method] | type[ClassificationLoss]:
    """The class of a method by name.

    Args:
        name: a key of `method_names`, or the import path `package.module.Class` of a subclass of
            `Method` or `ClassificationLoss`.
        base: as for `method_names`.

    Raises:
        InputError: when the name is unknown (the message suggests the nearest), or is that of a
            method for another task.
    """
    known = method_names(base)
    if name in known:
        return known[name]
    found = imported(name, "method")
    if found is None:
        rule = f"one of {sorted(known)}, or an import path"
        raise InputError(f"method must be {rule}, got {name!r}{nearest_or_module(name, known)}")
    if not inspect.isclass(found) or not issubclass(found, Method | ClassificationLoss):
        raise InputError(f"method {name!r} must be a Method or a ClassificationLoss, got {found!r}")
    if inspect.isabstract(found):
        raise InputError(f"method {name!r} must not be an abstract class")
    if issubclass(found, Method) and found.task != base.task:
        raise InputError(f"method {name!r} must be one for {base.task}, it is for {found.task}")
    return found


def create_method(
    name: str,
    settings: Mapping[str, Any],
    prior: ClassPrior,
    backbone: Backbone,
    earlier: ImageClassifier | None = None,
) -> Method:
    """Makes a method.

    Args:
        name: see `find_method`.
        settings: settings of the class; those of a classification loss are under `loss`.
        prior: class prior of the training set.
        backbone: the network to train.
        earlier: model of the run's earlier stage: the teacher, or the first stage of a two-stage
            method.

    Raises:
        ValueError: when the earlier model has another number of classes, or a two-stage method is
            given none.
    """
    found = find_method(name)
    if issubclass(found, ClassificationLoss):
        return PlainClassifier(prior, backbone, **with_loss(found, prior, settings))
    if found.first_method:
        if earlier is None:
            raise InputError(f"method {name!r} needs the model of its first stage")
        if earlier.num_classes != prior.num_classes:
            raise InputError(
                f"first stage of {name} must have the run's {prior.num_classes} classes, "
                f"got {earlier.num_classes}"
            )
        make_second: Any = found
        second: Method = make_second(prior, earlier, **settings)
        return second
    if found.teacher_method:
        settings = {**settings, "teacher": earlier}
    make: Any = found
    method: Method = make(prior, backbone, **settings)
    return method


def with_loss(
    loss: type[ClassificationLoss], prior: ClassPrior, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a plain classifier, with the created loss, and its head unless another is given.

    Args:
        loss: class of the loss.
        prior: class prior of the training set.
        settings: settings of the classifier; those of the loss are under `loss`.
    """
    made = loss(prior, **settings.get("loss", {}))
    return {"head": made.head, **settings, "loss": made}
