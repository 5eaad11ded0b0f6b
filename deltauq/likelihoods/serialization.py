"""Likelihoods as plain facts that can be written to a file, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.likelihoods.bernoulli import Bernoulli, Binary
from deltauq.likelihoods.categorical import Categorical
from deltauq.likelihoods.custom import CustomLoss
from deltauq.likelihoods.gaussian import Gaussian
from deltauq.likelihoods.likelihood import Array, Likelihood
from deltauq.likelihoods.poisson import Poisson

__all__ = ["likelihood_facts", "likelihood_of"]

#: What a likelihood's constructor takes, and its object has under the same name.
_ARGUMENTS: dict[type[Likelihood], tuple[str, ...]] = {
    Categorical: ("label_smoothing", "classes"),
    Bernoulli: ("label_smoothing",),
    Binary: ("label_smoothing", "classes"),
    Gaussian: ("noise", "pooled"),
    Poisson: (),
}

_KINDS = {kind.__name__: kind for kind in _ARGUMENTS}


def likelihood_facts(likelihood: Likelihood) -> dict[str, Any]:
    """Plain facts from which `likelihood_of` makes the same likelihood again.

    Args:
        likelihood: any of `deltauq.likelihoods`; where it has several positions, the facts are of
            the likelihood at one of them.

    Returns:
        The kind by its name, and the arguments of its constructor.

    Raises:
        UnsupportedModelError: a class of the user's own.
    """
    likelihood = likelihood.at_one_position
    if isinstance(likelihood, CustomLoss):
        like, dispersion = likelihood_facts(likelihood.inner), likelihood.dispersion(1)
        return {"kind": "CustomLoss", "like": like, "dispersion": dispersion}
    arguments = _ARGUMENTS.get(type(likelihood))
    if arguments is None:
        raise UnsupportedModelError(
            "the likelihood cannot be written to a file",
            expected="one of deltauq.likelihoods",
            received=f"a {type(likelihood).__name__}",
            remedy="fit with likelihood=CustomLoss(yours.loss, like), where like is the one of "
            "deltauq.likelihoods whose means yours has; predictions need no more",
        )
    values = {name: getattr(likelihood, name) for name in arguments}
    return {"kind": type(likelihood).__name__} | values


def likelihood_of(facts: Mapping[str, Any]) -> Likelihood:
    """The likelihood that `likelihood_facts` has described.

    A custom loss comes back without its function, which predictions do not need.

    Args:
        facts: the kind by its name, and the arguments of its constructor.
    """
    arguments = {name: value for name, value in facts.items() if name != "kind"}
    if facts["kind"] == "CustomLoss":
        return _LostLoss(likelihood_of(arguments["like"]), arguments["dispersion"])
    return _KINDS[facts["kind"]](**arguments)


class _LostLoss(CustomLoss):
    """A custom loss without its function: it takes no labels, and so no data."""

    def __init__(self, like: Likelihood, dispersion: float) -> None:
        super().__init__(like.loss, like, dispersion=dispersion)

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Refuse all labels, because the loss function is not there."""
        raise InvalidInputError(
            "the custom loss is not in the file, and this needs it",
            expected="a method that was fitted with the loss in this process",
            received="one that was loaded from a file",
            remedy="fit again with likelihood=that loss",
        )
