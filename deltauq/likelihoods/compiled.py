"""Which likelihood a model was trained with: as given, or read from its compiled loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.likelihoods.bernoulli import Bernoulli, Binary
from deltauq.likelihoods.categorical import Categorical
from deltauq.likelihoods.custom import CustomLoss
from deltauq.likelihoods.gaussian import Gaussian
from deltauq.likelihoods.likelihood import Likelihood, Outcome

__all__ = ["Training", "read_likelihood", "resolve_likelihood"]

_BY_NAME: dict[str, type[Likelihood]] = {
    kind.name: kind for kind in (Categorical, Binary, Bernoulli, Gaussian)
}

_CATEGORICAL = ("categorical_crossentropy", "sparse_categorical_crossentropy")
_BINARY = ("binary_crossentropy",)
_SQUARES = ("mean_squared_error", "mse")

#: Reductions of a loss that are means: over the rows, or over the weights.
_MEANS = ("sum_over_batch_size", "mean", "auto", "mean_with_sample_weight")


#: The module of Keras' own losses, as a model's file names it.
_OF_KERAS = "keras.losses"


@dataclass(frozen=True)
class Training:
    """What the weights of a model were trained to: a likelihood, and how a batch was reduced.

    Attributes:
        likelihood: of the labels.
        reduction: of the losses of a batch: "sum_over_batch_size" (divided by the rows),
            "mean_with_sample_weight" (by the sum of the weights) or "sum" (of an unknown number of
            rows, so that no L2 rate can be read).
    """

    likelihood: Likelihood
    reduction: str = "sum_over_batch_size"


def resolve_likelihood(likelihood: Any, *, n_outputs: int | None = None) -> Likelihood:
    """Turn what a user passes as `likelihood=` into a `Likelihood`.

    Args:
        likelihood: a name, a `Likelihood`, which is returned, or a loss function of logits and
            labels, of which a `CustomLoss` is made.
        n_outputs: of the model, for what a function's labels and means are: two classes of one
            sigmoid where there is one output, those of a softmax otherwise.

    Raises:
        InvalidInputError: it is none of these, or a `Likelihood` without a known outcome.
    """
    if isinstance(likelihood, Likelihood):
        outcome = getattr(likelihood, "outcome", None)
        if outcome in get_args(Outcome):
            return likelihood
        raise InvalidInputError(
            f"the outcome of the likelihood {type(likelihood).__name__} is not known",
            expected=f"outcome, a class attribute, one of {list(get_args(Outcome))}",
            received=repr(outcome),
            remedy="predictions, their table, plots and report are those of the outcome: take the "
            "one whose means yours are",
        )
    if isinstance(likelihood, str) and likelihood in _BY_NAME:
        return _BY_NAME[likelihood]()
    if isinstance(likelihood, Callable) and not isinstance(likelihood, type):  # type: ignore[arg-type]
        return CustomLoss(likelihood, Binary() if n_outputs == 1 else Categorical())
    raise InvalidInputError(
        f"likelihood {likelihood!r} is not known",
        expected=f"'auto', one of {sorted(_BY_NAME)}, a Likelihood object, or a loss function of "
        "logits and labels",
        received=repr(likelihood),
    )


def read_likelihood(compiled: dict[str, Any] | None, link: str | None, n_outputs: int) -> Training:
    """Read what a model was trained to from its compiled loss and its last operation.

    A model that was never compiled is taken by its last operation: a softmax, or several outputs
    without one, for classes; a sigmoid for yes or no.

    Args:
        compiled: what Keras' `get_compile_config` says; None where the model was not compiled.
        link: "Softmax" or "Sigmoid" at the end of the model; None for neither.
        n_outputs: C.

    Raises:
        UnsupportedModelError: a loss that is no likelihood known here or does not fit the model's
            last operation; one output of which nothing is known.
    """
    loss = (compiled or {}).get("loss")
    if compiled is None or loss is None:
        return Training(_by_link(link, n_outputs))
    name, config = _name_and_config(loss)
    reduction = str(config.get("reduction", "sum_over_batch_size"))
    problem = _unusual(compiled, config) or _contradiction(name, config, link, n_outputs)
    if problem is not None:
        _refuse(problem, loss)
    smoothing = float(config.get("label_smoothing") or 0.0)
    if name in _SQUARES:
        return Training(Gaussian(), reduction)
    if name in _CATEGORICAL:
        return Training(Categorical(label_smoothing=smoothing), reduction)
    kind = Binary if n_outputs == 1 else Bernoulli
    return Training(kind(label_smoothing=smoothing), reduction)


def _by_link(link: str | None, n_outputs: int) -> Likelihood:
    """The likelihood of a model without a compiled loss, by its last operation."""
    if link == "Sigmoid":
        return Binary() if n_outputs == 1 else Bernoulli()
    if n_outputs > 1:
        return Categorical()
    raise UnsupportedModelError(
        "nothing says what the model's one output is",
        expected="a compiled loss, or a sigmoid at the end",
        received=f"a model that was not compiled, with one output after {link or 'no link'}",
        remedy="say likelihood='binary' for a logit of two classes, or 'gaussian' for a regression",
    )


def _unusual(compiled: dict[str, Any], config: dict[str, Any]) -> str | None:
    """What the compiled loss does that no likelihood has a part for; None for nothing."""
    if compiled.get("loss_weights") not in (None, 1, 1.0, [1], [1.0]):
        return f"the loss was compiled with loss_weights={compiled['loss_weights']}"
    if config.get("ignore_class") is not None:
        return f"the loss ignores class {config['ignore_class']}"
    if config.get("axis", -1) != -1:
        return f"the loss takes the classes along axis {config['axis']}"
    if config.get("reduction", "mean") not in (*_MEANS, "sum"):
        return f"the loss is reduced by {config['reduction']!r}, so the cost is not known"
    return None


def _contradiction(
    name: str, config: dict[str, Any], link: str | None, n_outputs: int
) -> str | None:
    """Why the loss does not fit the model's last operation; None where it does."""
    if name in _SQUARES:
        if link == "Softmax":
            return f"the loss {name!r} was compiled for a softmax, whose labels have no such noise"
        return None
    if name not in (*_CATEGORICAL, *_BINARY):
        return f"the model was compiled with the loss {name!r}"
    wanted, output = ("Softmax", "softmax") if name in _CATEGORICAL else ("Sigmoid", "sigmoid")
    if name in _CATEGORICAL and n_outputs == 1:
        return f"the loss {name!r} was compiled for a model with one output"
    if link not in (None, wanted):
        return f"the loss {name!r} was compiled for a model that ends in a {link.lower()}"
    from_logits = bool(config.get("from_logits"))
    if from_logits == (link == wanted):
        gives = f"{output} probabilities" if link else "logits"
        return (
            f"the loss was compiled with from_logits={from_logits}, but the model's last operation "
            f"gives {gives}"
        )
    return None


def _refuse(problem: str, loss: Any) -> None:
    """Raise `UnsupportedModelError` for a loss, with what to say instead."""
    raise UnsupportedModelError(
        problem,
        expected="mean (sparse) categorical or binary cross-entropy, or mean squared error, that "
        "fits the model's output",
        received=repr(loss),
        remedy="if the weights were trained to a likelihood that is known here all the same, say "
        f"so: likelihood=... (one of {sorted(_BY_NAME)}, or a loss function of logits and labels) "
        "and l2=...",
    )


def _name_and_config(loss: Any) -> tuple[str, dict[str, Any]]:
    """The snake-case name and the configuration of a loss as Keras stores it."""
    if isinstance(loss, dict) and "class_name" in loss:
        config = loss.get("config")
        if loss["class_name"] == "function":
            return str(config), {}
        if loss.get("module", _OF_KERAS) != _OF_KERAS:  # the user's own, whatever its name is
            return str(loss.get("registered_name") or loss["class_name"]) + "()", {}
        camel = str(loss["class_name"])
        name = "".join("_" + c.lower() if c.isupper() else c for c in camel).lstrip("_")
        return name, config if isinstance(config, dict) else {}
    return str(loss).lower(), {}  # Keras takes "MSE" too
