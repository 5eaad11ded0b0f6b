"""The checks of `diagnose`: each looks at one thing and gives findings, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deltauq.curvature.cost import Stationarity
from deltauq.curvature.flatness import SMOOTHING, Flatness
from deltauq.curvature.minimization import Polished
from deltauq.curvature.registry import names_where
from deltauq.data.batches import Batches
from deltauq.data.weights import MEANINGS
from deltauq.errors import DeltaUQError
from deltauq.likelihoods import Likelihood
from deltauq.likelihoods.links import ACTIVATIONS
from deltauq.likelihoods.loss_names import function_in_words, only_loss
from deltauq.network.derivative_audit import named
from deltauq.network.interpretation import InterpretedModel
from deltauq.network.l2 import VariableRate, range_of
from deltauq.network.network import Network

__all__ = [
    "Finding",
    "classes_seen",
    "closeness_to_minimum",
    "curvature_of_loss",
    "extremes",
    "loss_as_understood",
    "mask_seen",
    "normalisation",
    "origin",
    "randomness",
    "rates_seen",
    "refusal",
    "weight_decay",
    "weights_seen",
]

Array = npt.NDArray[Any]

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What `diagnose` has to say of one thing that it looked at.

    Attributes:
        subject: what was looked at: "model", "precision", "randomness", "normalisation", "loss",
            "l2", "weight decay", "weights", "mask", "classes", "data", "stationarity" or
            "curvature".
        level: "ok", "note" (worth knowing), "warning" (the numbers will be off) or "error" (there
            will be none).
        what: was found.
        why: it matters; empty where all is well.
        remedy: what to do; empty where there is nothing to do.
    """

    subject: str
    level: Level
    what: str
    why: str = ""
    remedy: str = ""


def refusal(subject: str, error: DeltaUQError) -> Finding:
    """Turn an error by which deltauq refuses something into a finding."""
    more = f" ({error.received})" if error.received and error.received not in error.problem else ""
    why = f"deltauq needs {error.expected}" if error.expected else "it cannot be used"
    return Finding(subject, "error", error.problem + more, why, error.remedy or "")


def _layers(model: Any, *kinds: str) -> list[str]:
    """Names of the layers of some classes, those of `tf_keras` included."""
    found: list[Any] = getattr(model, "_flatten_layers", list)()
    return [
        layer.name
        for layer in found
        if any(parent.__name__ in kinds for parent in type(layer).__mro__)
    ]


def randomness(model: Any) -> Iterator[Finding]:
    """Look for layers that are random in training."""
    dropouts = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
    names = _layers(model, *dropouts, "GaussianDropout", "GaussianNoise")
    if names:
        yield Finding(
            "randomness",
            "note",
            f"layers that are random in training: {names}",
            "they are switched off here, and the weights minimised a noisier cost: the gradient of "
            "this one need not vanish",
            "look at the stationarity; polish=True, or train the last epochs without them",
        )


def normalisation(model: Any) -> Iterator[Finding]:
    """Look for layers that use other statistics than in training."""
    names = _layers(model, "BatchNormalization")
    if names:
        yield Finding(
            "normalisation",
            "note",
            f"batch normalisation in {names} uses its moving averages",
            "training used the statistics of its batches, so the weights need not minimise this "
            "cost",
            "look at the stationarity; polish=True mends it",
        )


def origin(network: Network) -> Iterator[Finding]:
    """Report by which Keras a model was opened that came out of a file."""
    if network.adapter.opened_by is not None:
        yield Finding("model", "ok", f"opened by {network.adapter.opened_by}")


def weight_decay(network: Network) -> Iterator[Finding]:
    """Look for a penalty that is not in the cost, such as an optimizer's weight decay."""
    decay = network.adapter.compilation.weight_decay
    if decay is not None:
        yield Finding(
            "weight decay",
            "warning",
            f"the optimizer {decay.optimizer} decays the weights (weight_decay={decay.rate:g})",
            "that is no L2 penalty of the cost, and no rate can be read from it: the weights "
            "minimise another cost than the one that is understood",
            "train with keras.regularizers.L2 instead; or give the rate to assume with l2=..., or "
            "l2='tune', and look at the stationarity",
        )


def rates_seen(rates: tuple[VariableRate, ...], tunes: bool) -> Finding:
    """Report variables without an L2 rate, where none is to be chosen for them."""
    missing = [rate.path for rate in rates if rate.rate == 0]
    every = len(missing) == len(rates)
    if not missing:
        text = f"every variable has an L2 rate ({range_of([rate.rate for rate in rates])})"
    else:
        text = "no variable has an L2 rate" if every else f"no L2 rate for {missing}"
    if tunes:
        why = (
            "with l2='tune' fit starts from these rates, or from 1 where one is missing, and "
            "multiplies them by what the marginal likelihood prefers"
        )
        return Finding("l2", "note", text, why, "heed what fit says of the rate it chose")
    if not missing:
        return Finding("l2", "ok", text)
    return Finding(
        "l2",
        "warning",
        text,
        "directions that the data do not determine have no bound on their variance without it",
        "pass l2='tune', l2=... (a rate, or {pattern: rate})"
        + ("" if every else ", or leave those variables out with layers=..."),
    )


def loss_as_understood(network: Network, likelihood: Any, interpreted: InterpretedModel) -> Finding:
    """Report the loss as compiled, or as given, beside the likelihood it was understood as."""
    link = interpreted.inspection.link
    text = f"understood as {interpreted.likelihood!r} on " + (
        f"the input of the last {ACTIVATIONS[link]}"
        if link and interpreted.likelihood.link
        else "the model's output"
    )
    if not (isinstance(likelihood, str) and likelihood == "auto"):
        given = function_in_words(likelihood) if callable(likelihood) else repr(likelihood)
        return Finding("loss", "note", f"as given: {given}; {text}")
    if only_loss((network.compiled_config() or {}).get("loss")) is None:
        return Finding(
            "loss",
            "note",
            f"the model has no compiled loss; {text}",
            "the curvature must be that of the loss that was minimised",
            "check that it was this one",
        )
    return Finding("loss", "ok", f"as compiled; {text}")


def mask_seen(data: Batches) -> Iterator[Finding]:
    """Report what the mask on the model's output takes out, where there is one."""
    if data.mask is None:
        return
    share = f"{data.n_masked or 'none'} of {data.n_masked + data.n_predictions} predictions"
    yield Finding(
        "mask",
        "note",
        f"the mask on the model's output takes out {share}",
        "a loss of Keras leaves them out and divides by the number of the others, and so they are "
        "left out here: of N, of the curvature, and of every figure",
        "nothing, if they are padding and the loss was Keras' own; otherwise end the mask before "
        "the output",
    )


def weights_seen(data: Batches) -> Iterator[Finding]:
    """Report what the weights of the examples were taken for."""
    if data.weighting != "none":
        what = f"taken as {data.weighting}: N is {data.n_examples:.10g}, of {data.n_rows:,} rows"
        yield Finding("weights", "note", what, *MEANINGS[data.weighting])


def classes_seen(data: Batches, likelihood: Likelihood, n_outputs: int) -> Iterator[Finding]:
    """Look for classes or labels without an example."""
    if not likelihood.has_discrete_labels:
        return
    n_outputs = len(likelihood.shown_logits(n_outputs // likelihood.positions))
    counts = np.zeros(n_outputs)
    for batch in data:
        count = batch.count.numpy().ravel()
        counts += count @ indicators(batch.y.numpy().reshape(len(count), -1), n_outputs)
    names = likelihood.classes or range(n_outputs)
    unseen = [str(name) for name, count in zip(names, counts, strict=True) if count == 0]
    if unseen:
        yield Finding(
            "classes",
            "warning",
            f"no example of class {', '.join(unseen)} out of {n_outputs}",
            "its probability is an extrapolation, and its standard error is mostly that of L2",
            "leave the class out of the model, or add examples of it",
        )
    else:
        rarest = int(np.argmin(counts))
        yield Finding(
            "classes",
            "ok",
            f"all {n_outputs} classes are seen; the rarest is {names[rarest]}, "
            f"{counts[rarest]:g} of {counts.sum():g}",
        )


def indicators(y: Array, n_outputs: int) -> Array:
    """How much of each class or label every observation is, `[N, C]`, of labels `[N, ...]`."""
    if y.shape[1] == n_outputs:
        return y
    share = y[:, 0]
    if y.dtype.kind == "f" and n_outputs == 2:  # a probability of class 1
        return np.stack([1.0 - share, share], axis=1)
    return np.eye(n_outputs)[share.astype(int)]


def closeness_to_minimum(
    found: Stationarity, kinks: tuple[str, ...], polished: Polished | None
) -> Iterator[Finding]:
    """Report how far a minimum is from the weights, and where polishing ended."""
    yield _closeness(found, kinks)
    if polished is None:
        return
    settled = polished.verdict != "not converged"
    yield Finding(
        "stationarity",
        "note" if settled else "warning",
        f"polished by {polished.iterations} iterations of L-BFGS on a copy: {polished.verdict}; "
        f"{_gradient(polished.stationarity)}; cost {found.cost:.6g} to "
        f"{polished.stationarity.cost:.6g}",
        "all other findings are about the model as it is, which was not changed"
        + ("" if settled else "; these weights are closer to a minimum, and none yet"),
        "diagnosis.apply_polished() gives it these weights"
        + ("" if settled else "; or more iterations: polish=10_000"),
    )


def _closeness(found: Stationarity, kinks: tuple[str, ...]) -> Finding:
    what = _gradient(found)
    if found.is_minimum:
        return Finding("stationarity", "ok", what)
    if found.shift is not None:
        what += (
            f"; a step to the minimum would move the predictions by {found.shift_range} of their "
            "standard errors (median, by the curvature of some examples)"
        )
    if kinks:
        what += f"; {list(kinks)} have kinks"
    if found.shift is None:
        why = "a fit says how far from a minimum that is, in standard errors: stationarity.shift"
        return Finding(
            "stationarity", "note", what, why, "heed the warning of fit, if there is one"
        )
    if not found.is_far:
        why = "that is little beside the standard errors, as usual after training by mini-batches"
        return Finding("stationarity", "note", what, why, "nothing; polish=True comes closer")
    return Finding(
        "stationarity",
        "warning",
        what,
        "the Delta method describes a minimum of the cost, and these weights are far from one: "
        "training stopped early, or l2 is not what it was trained with",
        "polish=True, train further with a smaller learning rate, or give the right l2",
    )


def _gradient(found: Stationarity) -> str:
    norm = f"the gradient's norm is {found.gradient_norm:.3g}"
    if found.l2_norm == 0:
        return norm
    return (
        f"{norm}, {found.ratio:.2g} of the larger of its parts (data {found.data_norm:.3g}, L2 "
        f"{found.l2_norm:.3g})"
    )


def curvature_of_loss(found: Flatness, likelihood: Likelihood) -> Iterator[Finding]:
    """Report where the loss has no curvature in the outputs, and what follows from that."""
    if len(found.linear) and not likelihood.curved:
        yield Finding(
            "curvature",
            "warning",
            f"the loss has no curvature in the outputs: {likelihood!r} is linear in them at "
            f"{found.share} of the data, but for kinks",
            f"curvature={names_where(lambda kind: not kind.made_of_scores)} are made of it, and "
            "are refused; 'opg' takes the loss for the negative log-likelihood of the labels, "
            "scale and all",
            SMOOTHING,
        )
    elif found.is_blank:
        yield Finding(
            "curvature",
            "warning",
            "the loss is flat at all of the data: probabilities are 0 and 1 to rounding, or every "
            "example keeps its margin",
            "the data say nothing of the weights there: standard errors are those that L2 alone "
            "gives",
            "train with more L2 or with label smoothing, or build the model in float64",
        )
    elif found.is_worth_a_word:
        apart = (
            f"the standard errors of 'sandwich' are about {found.factor:.2g} times those of 'ggn'"
        )
        made_of_it = names_where(lambda kind: not (kind.made_of_scores or kind.is_sandwich))
        why = f"these examples add nothing to {made_of_it}"
        yield Finding(
            "curvature",
            "warning" if found.matters else "note",
            f"the loss has no curvature at {found.share} of the data, and a slope at "
            f"{np.max(found.pulled):.2g}",
            f"{why}; {apart}, which holds whatever the labels' distribution is"
            if np.max(found.pulled) > 0
            else f"{why}, and need not: nothing pulls at their outputs",
            "pass curvature='sandwich', meat='scores', unless the loss is the negative "
            "log-likelihood of the labels, scale and all"
            if found.matters
            else "",
        )


def extremes(
    eigenvalues: tuple[float, float] | None,
    rates: Array,
    dtype: str,
    obstacles: Sequence[str],
) -> Iterator[Finding]:
    """Report the exact Hessian's extreme eigenvalues, beside the L2 rate and the rounding."""
    if eigenvalues is None:
        yield Finding(
            "curvature",
            "note",
            f"the exact Hessian cannot be formed: {named(obstacles)}",
            "TensorFlow's second derivative of those operations is false or missing",
            "use curvature='ggn' or 'opg'",
        )
        return
    smallest, largest = eigenvalues
    text = f"eigenvalues of the exact Hessian from {smallest:.3g} to {largest:.3g}"
    rate = float(np.min(rates))
    if not largest > 0:
        yield Finding(
            "curvature",
            "warning",
            f"{text}: none is positive",
            "no label holds the weights where they are: the standard errors of the exact Hessian "
            "are those that L2 alone gives",
            "heed what is said of the loss, or give l2 as it was in training",
        )
    elif not smallest + rate > 0:
        yield Finding(
            "curvature",
            "note",
            f"{text}, with L2 from {rate:.3g}: not positive definite, as usual for a network",
            "the exact Hessian has no inverse then: curvature='hessian' sets its negative "
            "eigenvalues to zero unless told otherwise; 'ggn' and 'opg' have none",
            f"nothing for {names_where(lambda kind: kind.semidefinite)}; for 'hessian', more L2 or "
            "further training has fewer",
        )
    else:
        yield Finding("curvature", "ok", text)
    resolution = float(np.finfo(dtype).eps) * largest
    if rate and not resolution <= 0.1 * rate:
        yield Finding(
            "precision",
            "warning",
            f"the rounding of {dtype}, {resolution:.1g}, is close to the L2 rate",
            "directions that L2 matters for drown in rounding",
            "scale the inputs, raise l2, or build the model in float64",
        )
