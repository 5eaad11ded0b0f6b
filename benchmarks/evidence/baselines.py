"""What the Delta method stands beside: ensembles, bootstraps, dropout, temperatures, sets.

They train networks, which the library does not, and so live here. The predictions of each member
are kept in a file named by its settings: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.optimize
import scipy.special

from deltauq.evaluation.proper_scores import log_loss
from evidence.frame import CACHE, written
from evidence.training import Recipe

Array = np.ndarray[Any, Any]
Kind = Literal["ensemble", "bootstrap", "static bootstrap"]

#: Part of every name in the cache: to be changed where training changes.
_VERSION = 2


@dataclass(frozen=True)
class Members:
    """Probabilities of several networks or passes, with what a `Prediction` has of them.

    Attributes:
        each: probabilities of every member `[M, N, C]`.
        seconds: of the processor, that training and predicting took, of all together.
    """

    each: Array
    seconds: float

    @cached_property
    def probabilities(self) -> Array:
        """The mean over the members `[N, C]`."""
        return self.each.mean(axis=0)

    @cached_property
    def std(self) -> Array:
        """Standard deviation over the members `[N, C]`, unbiased in the variance."""
        return self.each.std(axis=0, ddof=1)

    @property
    def score(self) -> Array:
        """Root of the trace of the covariance over the members `[N]`."""
        return np.sqrt(np.sum(self.std**2, axis=1))

    @property
    def entropy(self) -> Array:
        """Entropy of the mean probabilities `[N]`, in nats."""
        return scipy.special.entr(self.probabilities).sum(axis=1)

    @property
    def mutual_information(self) -> Array:
        """Entropy of the mean less the mean of the entropies `[N]`."""
        return self.entropy - scipy.special.entr(self.each).sum(axis=2).mean(axis=0)

    @property
    def least_confidence(self) -> Array:
        """One minus the largest mean probability `[N]`."""
        return 1 - self.probabilities.max(axis=1)


def members(
    recipe: Recipe,
    kind: Kind,
    n: int,
    *,
    others: dict[str, Array] | None = None,
    seed: int = 1,
) -> dict[str, Members]:
    """Train several networks and predict the test inputs, and others, with each.

    An ensemble has other initial weights and the same data; a bootstrap resamples inputs and labels
    together (paired) as well, the "static" one from the same initial weights in all members, those
    of the recipe's own network (arXiv 2107.01606, section 4).

    Args:
        recipe: of each member.
        kind: which of them.
        n: number of members.
        others: more inputs, by name.
        seed: of the first member; the recipe's own network has 0.

    Returns:
        Predictions by the name of the inputs, "test" for those of the task.
    """
    inputs = {"test": recipe.task.x_test} | (others or {})
    found = [_kept_member(recipe, kind, seed + k, inputs) for k in range(n)]
    seconds = float(sum(float(each["seconds"]) for each in found))
    return {name: Members(np.stack([each[name] for each in found]), seconds) for name in inputs}


def _kept_member(recipe: Recipe, kind: Kind, seed: int, inputs: dict[str, Array]) -> Any:
    """Predictions of one member, from its file where there is one."""
    sums = {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in inputs.items()}
    made_of = {"version": _VERSION, "kind": kind, "seed": seed, "of": recipe.settings, "x": sums}
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    path = CACHE / f"{digest[:32]}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    started = time.process_time()
    n, rows = recipe.n_rows, None
    if kind != "ensemble":
        rows = np.random.default_rng(seed).integers(n, size=n)
    model = recipe.train(0 if kind == "static bootstrap" else seed, rows)
    found = {name: probabilities(model, x) for name, x in inputs.items()}
    found["seconds"] = np.array(time.process_time() - started)
    content = io.BytesIO()
    np.savez(content, **found)
    written(path, content.getvalue())
    return found


def probabilities(model: Any, x: Array) -> Array:
    """Plain probabilities of a network with logits `[N, C]`."""
    logits = np.concatenate([model(x[i : i + 512]) for i in range(0, len(x), 512)])
    return scipy.special.softmax(logits.astype(np.float64), axis=1)


def mc_dropout(model: Any, x: Array, n: int = 30, seed: int = 0) -> Members:
    """Passes of one network with its dropout on (Gal and Ghahramani 2016, arXiv 1506.02142)."""
    import keras

    keras.utils.set_random_seed(seed)
    started = time.process_time()
    each = [
        np.concatenate([model(x[i : i + 512], training=True) for i in range(0, len(x), 512)])
        for _ in range(n)
    ]
    passes = scipy.special.softmax(np.stack(each).astype(np.float64), axis=2)
    return Members(passes, time.process_time() - started)


def temperature(logits: Array, y: Array) -> float:
    """The temperature T of softmax(z / T) that makes held-out labels most likely.

    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2.
    """
    found = scipy.optimize.minimize_scalar(
        lambda log_t: log_loss(scipy.special.softmax(logits / np.exp(log_t), axis=1), y),
        bounds=(-3, 3),
        method="bounded",
    )
    return float(np.exp(found.x))


def conformal_sets(held_out: Array, y: Array, p: Array, level: float = 0.9) -> Array:
    """Sets of classes that hold the label with a probability, `[N, C]` booleans (split conformal).

    Classes whose 1 - p is at most the ceil((n + 1) level)-th smallest of the held-out labels; all
    of them where there are too few held-out ones.

    Source: Sadinle et al. 2019, arXiv 1609.00451; Angelopoulos and Bates 2021, arXiv 2107.07511.
    """
    misfit = np.sort(1 - held_out[np.arange(len(y)), y])
    k = int(np.ceil((len(y) + 1) * level))
    limit = misfit[k - 1] if k <= len(y) else np.inf
    return np.asarray(1 - p <= limit)
