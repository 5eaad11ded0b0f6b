"""By what a fit is known again, when one that was interrupted is to be gone on with."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import joblib
import keras
import numpy as np
import scipy
import tensorflow as tf
import threadpoolctl

from deltauq import __version__
from deltauq.data.arrays import ArrayInputs
from deltauq.data.inputs import InputBatches
from deltauq.delta.problem import Problem
from deltauq.delta.settings import Settings
from deltauq.errors import UnsupportedModelError
from deltauq.likelihoods import likelihood_facts
from deltauq.runtime.checkpoint import Checkpoint
from deltauq.runtime.manifest import Work
from deltauq.runtime.stages import Stage
from deltauq.runtime.steps import Steps

__all__ = ["going_on", "work_of_fit"]

#: Settings that change no number, or that stand in the identity in the form of what they lead to;
#: and one that changes the last digits alone.
_ELSEWHERE = ("layers", "progress", "batch_size")

#: By what weights are multiplied for a point beside them.
_BESIDE = 1.05

#: Bytes of the buffer for rows above which its size changes nothing but for the largest models.
_AMPLE = 2**29


@contextmanager
def going_on(
    record: Checkpoint | None, problem: Problem, settings: Settings, tell: Callable[[str], object]
) -> Iterator[Steps]:
    """The long steps of a fit; those that a checkpoint has from an interrupted one come from there.

    Args:
        record: the checkpoint; None for none.
        problem: what is asked.
        settings: how.
        tell: is told how large the checkpoint is, and how to go on from it.

    Raises:
        InvalidInputError: the checkpoint is of another fit.
    """
    if record is None:
        yield Steps()
        return
    data = problem.training_set
    data.listener.stages.begin(Stage("the checkpoint", "is it of this fit?", parts=data.n_rows))
    with record.begin(work_of_fit(problem, settings), tell):
        yield record


def work_of_fit(problem: Problem, settings: Settings) -> Work:
    """Say what a fit is, for its checkpoint; takes a pass over arrays to take their checksum.

    Args:
        problem: what is asked.
        settings: how.
    """
    network = problem.network
    variables = [(p.start, p.stop) for p in network.parameters]
    others = {name: value for name, value in settings.of_method().items() if name not in _ELSEWHERE}
    identity = {
        "the model's weights": network.fingerprint(),
        "uncertain variables": str(variables),
        "precision": network.dtype,
        "likelihood": str(_likelihood(problem)),
        "the cost beside the weights, and its slope": _cost(problem),
        "L2 rates": [float(problem.rates[start]) for start, _ in variables],
        **_training_data(problem),
        "calibration inputs": _inputs(problem.calibration),
        **{name: repr(value) for name, value in others.items()},
    }
    return Work(identity, _surroundings(problem))


def _likelihood(problem: Problem) -> Any:
    """The likelihood without numbers that were estimated, which the rates stand for."""
    try:
        facts = likelihood_facts(problem.likelihood)
    except UnsupportedModelError:  # one of the user's own
        return type(problem.likelihood).__name__
    return {name: value for name, value in facts.items() if name not in ("noise", "dispersion")}


def _cost(problem: Problem) -> list[str]:
    """The cost and the length of its gradient on all data, which tell functions from others.

    Weights say nothing of what the model does with them, nor has a loss function a checksum. They
    are of a point beside the weights, where the gradient is no small difference of large numbers.
    """
    found, _ = problem.cost.evaluate(_BESIDE * problem.network.params.numpy())
    return [f"{found.cost:.4e}", f"{found.data_norm:.3e}"]


def _training_data(problem: Problem) -> dict[str, Any]:
    """What tells training data from others, and their order where that is known to stay."""
    data = problem.training_set
    facts = {"number of examples": data.n_rows, "weights are": data.weighting}
    given = data.as_given()
    if given is not None:
        classes = sorted((given.class_weight or {}).items())
        weights = np.ones(0) if given.sample_weight is None else given.sample_weight
        leaves = (given.x.nest, given.y, weights, np.array(classes))
        return facts | {"training data": _checksum(leaves)}
    whole = data.spec.y.dtype.is_integer
    labels = {"sum of the labels": float(data.sums[1])} if whole else {}
    return facts | labels | {"sums of the training data": data.sums.tolist()}


def _inputs(calibration: InputBatches | None) -> str:
    """Checksum of calibration inputs; products tell those of a dataset, which is not held."""
    if calibration is None:
        return "none"
    source = calibration.source
    return _checksum(source.nest) if isinstance(source, ArrayInputs) else "a dataset"


def _checksum(nest: Any) -> str:
    """SHA-256 of a nest of arrays, text among them, in their order."""
    digest = hashlib.sha256()
    for leaf in tf.nest.flatten(nest):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape}".encode())
        if array.dtype.kind == "O":
            for text in array.ravel():
                digest.update(f"{len(text)} ".encode() + text)
        else:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _surroundings(problem: Problem) -> dict[str, Any]:
    """What the last digits of numbers may depend on: sizes of batches, versions, the processor."""
    _, plan = problem.require_data()
    blas = {
        f"{each['internal_api']} {each['version']} for {each.get('architecture')}, "
        f"{each['num_threads']} threads"
        for each in threadpoolctl.threadpool_info()
        if each["user_api"] == "blas"
    }
    return {
        "rows a batch": problem.training_set.batch_size,
        "buffer": min(plan.buffer, _AMPLE),
        "deltauq": __version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "processors": f"{joblib.cpu_count()} of {platform.machine()}",
        "BLAS": ", ".join(sorted(blas)),
        "TensorFlow's threads": tf.config.threading.get_intra_op_parallelism_threads(),
    }
