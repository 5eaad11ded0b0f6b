"""Which likelihood a model was trained with: as given, or read from its compiled loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, get_args

from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.likelihoods.bernoulli import Bernoulli, Binary
from deltauq.likelihoods.categorical import Categorical
from deltauq.likelihoods.custom import CustomLoss
from deltauq.likelihoods.gaussian import Gaussian
from deltauq.likelihoods.likelihood import Likelihood, Outcome
from deltauq.likelihoods.links import ACTIVATIONS, spoken
from deltauq.likelihoods.loss_names import loss_in_words, name_and_config, only_loss
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
    "give the logarithms of the rates: pass keras.Model(model.inputs, "
    "keras.ops.log(model.outputs[0])) with likelihood='poisson' (of tf_keras: tf_keras.Model, and "
    "tf.math.log)"
)

#: What to do where the weights came from another cost than the one that the loss seems to say.
_SAY_SO = (
    "if the weights were trained to a likelihood that is known here all the same, say so: "
    f"likelihood=... (one of {sorted(_BY_NAME)}) and l2=..."
)

#: Beside it, for a loss that is not known.
_OF_YOUR_OWN = (
    f"{_SAY_SO}; or write the loss as a function f(logits, y) that gives one number an example, "
    "and pass CustomLoss(f, like) of deltauq.likelihoods for the likelihood, where like is "
    "Categorical() for classes, Binary() for one sigmoid, Gaussian() for numbers: see 'A loss of "
    "my own' in the documentation"
)

#: What to do with sigmoids that a loss of classes divides by their sum.
_DIVIDED = (
    "that loss divides the sigmoids by their sum, which is a softmax of their logarithms: pass "
    "keras.Model(model.inputs, keras.ops.softmax(keras.ops.log(model.outputs[0]))) with "
    "likelihood='categorical' (of tf_keras: tf_keras.Model, tf.nn.softmax and tf.math.log)"
)


class _Misfit(NamedTuple):
    """Why a compiled loss cannot be taken for a likelihood, and what to do about it."""

    problem: str
    remedy: str = _SAY_SO


@dataclass(frozen=True)
class Training:
    """What the weights of a model were trained to: a likelihood, and how a batch was reduced.

    Attributes:
        likelihood: of the labels.
        reduction: of the losses of a batch: "sum_over_batch_size" (divided by the rows),
            "mean_with_sample_weight" (by the sum of the weights) or "sum" (of an unknown number of
            rows, so that no L2 rate can be read).
        from_logits: the loss was said to be one of logits, whatever the last operation is.
    """

    likelihood: Likelihood
    reduction: str = "sum_over_batch_size"
    from_logits: bool = False


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
    loss = only_loss((compiled or {}).get("loss"))
    if likelihood.link == "Exp" and link is None and name_and_config(loss)[0] in _COUNTS:
        _refuse(_Misfit(_NO_EXPONENTIAL, LOG_RATES), loss)


def read_likelihood(
    compiled: dict[str, Any] | None, link: str | None, n_outputs: int, *, keeps_logits: bool = False
) -> Training:
    """Read what a model was trained to from its compiled loss and its last operation.

    A model without a compiled loss is taken by its last operation: a softmax, or several outputs
    without one, for classes; a sigmoid for yes or no. An exponential may be that of counts or of
    other positive numbers, and is refused.

    Args:
        compiled: what Keras' `get_compile_config` says; None where the model was not compiled.
        link: "Softmax", "Sigmoid" or "Exp" at the end of the model; None for none of them.
        n_outputs: C.
        keeps_logits: beside the output Keras keeps what stands before its softmax or sigmoid, and
            computes the loss from that, whichever of the two it is.

    Raises:
        UnsupportedModelError: a loss that is no likelihood known here or does not fit the model's
            last operation; one output of which nothing is known.
    """
    loss = only_loss((compiled or {}).get("loss"))
    if compiled is None or loss is None:
        return Training(_by_link(link, n_outputs))
    name, config = name_and_config(loss)
    reduction = str(config.get("reduction", "sum_over_batch_size"))
    misfit = _unusual(compiled, config) or _contradiction(loss, link, n_outputs, keeps_logits)
    if misfit is not None:
        _refuse(misfit, loss)
    smoothing = float(config.get("label_smoothing") or 0.0)
    from_logits = bool(config.get("from_logits"))
    if name in _SQUARES:
        return Training(Gaussian(), reduction)
    if name in _COUNTS:
        return Training(Poisson(), reduction)
    if name in _CATEGORICAL:
        return Training(Categorical(label_smoothing=smoothing), reduction, from_logits)
    kind = Binary if n_outputs == 1 else Bernoulli
    return Training(kind(label_smoothing=smoothing), reduction, from_logits)


def _by_link(link: str | None, n_outputs: int) -> Likelihood:
    """The likelihood of a model without a compiled loss, by its last operation."""
    if link == "Sigmoid":
        return Binary() if n_outputs == 1 else Bernoulli()
    if link == "Exp":
        raise UnsupportedModelError(
            "nothing says what the model's positive outputs are",
            expected="a compiled loss, or a likelihood",
            received="a model without a compiled loss, which ends in an exponential",
            remedy="say likelihood='poisson' for counts, or 'gaussian' for numbers with normal "
            "noise",
        )
    if n_outputs > 1:
        return Categorical()
    raise UnsupportedModelError(
        "nothing says what the model's one output is",
        expected="a compiled loss, or a sigmoid at the end",
        received="a model without a compiled loss, with one output after no link function",
        remedy="say likelihood='binary' for a logit of two classes, 'gaussian' for a regression, "
        "or 'poisson' for the log rate of a count",
    )


def _unusual(compiled: dict[str, Any], config: dict[str, Any]) -> _Misfit | None:
    """What the compiled loss does that no likelihood has a part for; None for nothing."""
    weight = only_loss(compiled.get("loss_weights"))
    if weight not in (None, 1, 1.0):
        return _Misfit(f"the loss was compiled with loss_weights={compiled['loss_weights']}")
    ignored = config.get("ignore_class")
    if ignored is not None:
        return _Misfit(
            f"the loss ignores class {ignored}",
            f"ignored labels are those of weight zero: pass likelihood='categorical' and "
            f"fit(x, np.where(y == {ignored}, 0, y), sample_weight=(y != {ignored}))",
        )
    if config.get("axis", -1) != -1:
        return _Misfit(f"the loss takes the classes along axis {config['axis']}")
    if config.get("reduction", "mean") not in (*_MEANS, "sum"):
        reduction = config["reduction"]
        return _Misfit(f"the loss is reduced by {reduction!r}, so the cost is not known")
    return None


def _contradiction(
    loss: Any, link: str | None, n_outputs: int, keeps_logits: bool
) -> _Misfit | None:
    """Why the loss does not fit the model's last operation; None where it does."""
    name, config = name_and_config(loss)
    if name in _SQUARES:
        if link == "Softmax":
            return _Misfit(
                f"the loss {name!r} was compiled for a softmax, whose labels have no such noise",
                _OF_YOUR_OWN,
            )
        return None
    if name in _COUNTS:
        return None if link == "Exp" else _Misfit(_NO_EXPONENTIAL, LOG_RATES)
    if name not in _LINKS:
        words = loss_in_words(loss)
        which = f"{words} as the loss" if words == "a lambda" else f"the loss {words}"
        return _Misfit(f"the model was compiled with {which}", _OF_YOUR_OWN)
    wanted = _LINKS[name]
    if name in _CATEGORICAL and n_outputs == 1:
        return _Misfit(f"the loss {name!r} was compiled for a model with one output")
    from_logits = bool(config.get("from_logits"))
    if link is not None and link != wanted:
        problem = f"the loss {name!r} was compiled for a model that ends in {spoken(link)}"
        if keeps_logits:
            return _Misfit(problem, _other_end(link, ACTIVATIONS[wanted]))
        divided = name in _CATEGORICAL and link == "Sigmoid" and not from_logits
        return _Misfit(problem, _DIVIDED if divided else _OF_YOUR_OWN)
    if from_logits and link == wanted:
        return _Misfit(
            "the loss was compiled with from_logits=True, but the model's last operation gives "
            f"{ACTIVATIONS[wanted]} probabilities"
        )
    if not from_logits and link is None:
        return _Misfit(
            f"the loss {name!r} was compiled without from_logits=True, but the model does not end "
            f"in {spoken(wanted)}",
            "that loss cut the outputs off at 0 and 1 as if they were probabilities: compile with "
            "from_logits=True where they are logits, or end the model in "
            f"{spoken(wanted)}, and train again",
        )
    return None


def _other_end(link: str, activation: str) -> str:
    """What to do with a model whose loss was that of another activation than its last one."""
    return (
        f"Keras computes that loss from what stands before {spoken(link)}, as if the model ended "
        f"in a {activation}: give it that end, model.layers[-1].activation = "
        f"keras.activations.{activation} (of tf_keras: tf_keras.activations.{activation}) where "
        "the last layer has it, compile it again, and pass it"
    )


def _refuse(misfit: _Misfit, loss: Any) -> NoReturn:
    """Raise `UnsupportedModelError` for a loss, with what to do instead."""
    raise UnsupportedModelError(
        misfit.problem,
        expected="mean (sparse) categorical or binary cross-entropy, mean squared error or "
        "Poisson, that fits the model's output",
        received=loss_in_words(loss),
        remedy=misfit.remedy,
    )
