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
from deltauq.likelihoods.links import ACTIVATIONS, spoken
from deltauq.likelihoods.loss_names import loss_in_words, name_and_config
from deltauq.likelihoods.poisson import Poisson

__all__ = ["LOG_RATES", "Training", "read_likelihood", "refuse_rates", "resolve_likelihood"]

_BY_NAME: dict[str, type[Likelihood]] = {
    kind.name: kind for kind in (Categorical, Binary, Bernoulli, Gaussian, Poisson)
}

_CATEGORICAL = ("categorical_crossentropy", "sparse_categorical_crossentropy")
_BINARY = ("binary_crossentropy",)
_SQUARES = ("mean_squared_error", "mse")
_COUNTS = ("poisson",)

#: Losses of classes, with the link function before them.
_LINKS = dict.fromkeys(_CATEGORICAL, "Softmax") | dict.fromkeys(_BINARY, "Sigmoid")

#: Reductions of a loss that are means: over the rows, or over the weights.
_MEANS = ("sum_over_batch_size", "mean", "auto", "mean_with_sample_weight")

#: Why outputs beside a loss of rates are neither rates whose logarithms are known nor log rates.
_NO_EXPONENTIAL = "the loss 'poisson' takes rates, and the model does not end in an exponential"

#: What to do with a model that gives rates in another way than by an exponential at its end.
LOG_RATES = (
    "give the logarithms of the rates: pass keras.Model(model.inputs, keras.ops.log(model.output)) "
    "with likelihood='poisson' (of tf_keras: tf_keras.Model, and tf.math.log)"
)


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


def refuse_rates(likelihood: Likelihood, compiled: dict[str, Any] | None, link: str | None) -> None:
    """Refuse a likelihood of log rates where the loss says that the outputs are rates themselves.

    Args:
        likelihood: as it was given, beside a compiled loss that is not otherwise read.
        compiled: as for `read_likelihood`.
        link: likewise.

    Raises:
        UnsupportedModelError: the compiled loss is of rates, and no exponential makes them.
    """
    loss = (compiled or {}).get("loss")
    if likelihood.link == "Exp" and link is None and name_and_config(loss)[0] in _COUNTS:
        _refuse(_NO_EXPONENTIAL, loss, link)


def read_likelihood(compiled: dict[str, Any] | None, link: str | None, n_outputs: int) -> Training:
    """Read what a model was trained to from its compiled loss and its last operation.

    A model that was never compiled is taken by its last operation: a softmax, or several outputs
    without one, for classes; a sigmoid for yes or no. An exponential may be that of counts or of
    other positive numbers, and is refused.

    Args:
        compiled: what Keras' `get_compile_config` says; None where the model was not compiled.
        link: "Softmax", "Sigmoid" or "Exp" at the end of the model; None for none of them.
        n_outputs: C.

    Raises:
        UnsupportedModelError: a loss that is no likelihood known here or does not fit the model's
            last operation; one output of which nothing is known.
    """
    loss = (compiled or {}).get("loss")
    if compiled is None or loss is None:
        return Training(_by_link(link, n_outputs))
    name, config = name_and_config(loss)
    reduction = str(config.get("reduction", "sum_over_batch_size"))
    problem = _unusual(compiled, config) or _contradiction(loss, link, n_outputs)
    if problem is not None:
        _refuse(problem, loss, link)
    smoothing = float(config.get("label_smoothing") or 0.0)
    if name in _SQUARES:
        return Training(Gaussian(), reduction)
    if name in _COUNTS:
        return Training(Poisson(), reduction)
    if name in _CATEGORICAL:
        return Training(Categorical(label_smoothing=smoothing), reduction)
    kind = Binary if n_outputs == 1 else Bernoulli
    return Training(kind(label_smoothing=smoothing), reduction)


def _by_link(link: str | None, n_outputs: int) -> Likelihood:
    """The likelihood of a model without a compiled loss, by its last operation."""
    if link == "Sigmoid":
        return Binary() if n_outputs == 1 else Bernoulli()
    if link == "Exp":
        raise UnsupportedModelError(
            "nothing says what the model's positive outputs are",
            expected="a compiled loss, or a likelihood",
            received="a model that was not compiled, which ends in an exponential",
            remedy="say likelihood='poisson' for counts, or 'gaussian' for numbers with normal "
            "noise",
        )
    if n_outputs > 1:
        return Categorical()
    raise UnsupportedModelError(
        "nothing says what the model's one output is",
        expected="a compiled loss, or a sigmoid at the end",
        received="a model that was not compiled, with one output after no link function",
        remedy="say likelihood='binary' for a logit of two classes, 'gaussian' for a regression, "
        "or 'poisson' for the log rate of a count",
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


def _contradiction(loss: Any, link: str | None, n_outputs: int) -> str | None:
    """Why the loss does not fit the model's last operation; None where it does."""
    name, config = name_and_config(loss)
    if name in _SQUARES:
        if link == "Softmax":
            return f"the loss {name!r} was compiled for a softmax, whose labels have no such noise"
        return None
    if name in _COUNTS:
        return None if link == "Exp" else _NO_EXPONENTIAL
    if name not in _LINKS:
        words = loss_in_words(loss)
        which = f"{words} as the loss" if words == "a lambda" else f"the loss {words}"
        return f"the model was compiled with {which}"
    wanted = _LINKS[name]
    if name in _CATEGORICAL and n_outputs == 1:
        return f"the loss {name!r} was compiled for a model with one output"
    if link is not None and link != wanted:
        return f"the loss {name!r} was compiled for a model that ends in {spoken(link)}"
    from_logits = bool(config.get("from_logits"))
    if from_logits == (link == wanted):
        gives = f"{ACTIVATIONS[wanted]} probabilities" if link else "logits"
        return (
            f"the loss was compiled with from_logits={from_logits}, but the model's last operation "
            f"gives {gives}"
        )
    return None


def _refuse(problem: str, loss: Any, link: str | None) -> None:
    """Raise `UnsupportedModelError` for a loss, with what to say instead."""
    name, _ = name_and_config(loss)
    remedy = (
        "if the weights were trained to a likelihood that is known here all the same, say so: "
        f"likelihood=... (one of {sorted(_BY_NAME)}) and l2=..."
    )
    if name in _COUNTS and link != "Exp":
        remedy = LOG_RATES
    elif name not in (*_LINKS, *_SQUARES, *_COUNTS):
        remedy += (
            "; or write the loss as a function f(logits, y) that gives one number an example, and "
            "pass CustomLoss(f, like) of deltauq.likelihoods for the likelihood, where like is "
            "Categorical() for classes, Binary() for one sigmoid, Gaussian() for numbers: see "
            "'A loss of my own' in the documentation"
        )
    raise UnsupportedModelError(
        problem,
        expected="mean (sparse) categorical or binary cross-entropy, mean squared error or "
        "Poisson, that fits the model's output",
        received=loss_in_words(loss),
        remedy=remedy,
    )
