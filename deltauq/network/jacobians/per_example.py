"""Per-example vector-Jacobian products of the logits, many examples at once.

A trace of the forward pass shows which operation reads each variable; one backward pass for each
cotangent gives that operation's own cotangent, and a small rule per operation type makes rows of
it: for y = a W the row of W is a (x) delta. Whatever no rule covers is differentiated example by
example. Before use the rules are compared with plain automatic differentiation on real rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import UnsupportedModelError
from deltauq.network.graph import copies, reached_from, traced_and_read
from deltauq.network.jacobians.factors import Factor, Rows, Scaled, Total, evaluated, stacked
from deltauq.network.jacobians.rules import RULES
from deltauq.network.jacobians.taps import Tap, find_taps
from deltauq.network.network import Network
from deltauq.network.probe_rows import PROOFS, proving_cotangent, rounding, row_gradient

__all__ = ["Cotangents", "PerExample", "rows_by_example"]

#: Maps logits `[B, C]` to the cotangents `[B, R, C]` whose rows are wanted (R static).
Cotangents = Callable[[tf.Tensor], tf.Tensor]

#: Number of a variable that rules cover -> folds of each of its taps, see `Tap`.
_Folds = Mapping[int, Sequence[int]]


class PerExample:
    """Rows c^T J `[B, R, P]` of every example, variable by variable.

    Args:
        network: the network.
        probe: a few different input rows on which the rules are compared with automatic
            differentiation; a variable whose rows differ goes to the example-by-example path.

    Attributes:
        probe: those rows.
        mapped: paths of the variables on the example-by-example path.

    Raises:
        UnsupportedModelError: the logits have no derivative in some of the variables.
    """

    def __init__(self, network: Network, probe: Any) -> None:
        self._network = network
        self.probe = probe
        self._folds = _proven_rules(network, probe)

    @property
    def mapped(self) -> list[str]:
        """Paths of the variables that no rule covers."""
        parameters = enumerate(self._network.parameters)
        return [parameter.path for i, parameter in parameters if i not in self._folds]

    def factors(
        self, params: tf.Tensor, x: Any, cotangents: Cotangents
    ) -> tuple[list[Factor], tf.Tensor]:
        """Form rows c^T J of every example, and the logits; inside a `tf.function` only.

        Args:
            params: `[P]`.
            x: inputs `[B, ...]`.
            cotangents: logits `[B, C]` -> `[B, R, C]`.

        Returns:
            One factor for each variable, its fields still symbolic (`evaluated` gives arrays), and
            logits `[B, C]`. Cost: one forward pass and R backward passes.
        """
        pieces, logits = _forward(self._network, params, x)
        taps = _taps(pieces, x, logits, self._folds)
        proven = {i: each for i, each in taps.items() if i in self._folds}
        return _all_factors(self._network, pieces, x, logits, proven, cotangents), logits


def _forward(network: Network, params: tf.Tensor, x: Any) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Parameters as tensors of their own in the trace, and the logits made of them."""
    pieces = network.unflatten(params)
    return pieces, network.logits(pieces, x)


def _taps(
    pieces: list[tf.Tensor], x: Any, logits: tf.Tensor, known: _Folds
) -> dict[int, list[Tap]]:
    """Where each variable is read that rules cover.

    How many rows of an operation's output belong to one example shows where the number of examples
    is static, as on a probe; otherwise it is what is known already.
    """
    from_data = reached_from(tf.nest.flatten(x))
    operands = {operation: rule.operands for operation, rule in RULES.items()}
    found: dict[int, list[Tap]] = {}
    for i, piece in enumerate(pieces):
        taps = find_taps(piece, from_data, operands)
        if taps is not None and all(RULES[tap.kind].when(tap) for tap in taps):
            before = chain(known.get(i, ()), repeat(1))
            found[i] = [
                replace(tap, folds=_static_folds(tap, logits) or folds)
                for tap, folds in zip(taps, before, strict=False)
            ]
    return found


def _static_folds(tap: Tap, logits: tf.Tensor) -> int | None:
    """Rows of the output for each row of the logits; None where one of the two is not static."""
    if logits.shape[0] is None or tap.output.shape[0] is None:
        return None
    return max(1, int(tap.output.shape[0]) // int(logits.shape[0]))


def _all_factors(
    network: Network,
    pieces: list[tf.Tensor],
    x: Any,
    logits: tf.Tensor,
    taps: dict[int, list[Tap]],
    cotangents: Cotangents,
) -> list[Factor]:
    """Rows of every variable: by rules where there are taps, example by example elsewhere."""
    c = tf.stop_gradient(cotangents(logits))
    factors = _ruled(network, pieces, taps, logits, c)
    others = [i for i in range(len(pieces)) if i not in taps]
    for i, rows in rows_by_example(network, pieces, x, c, others).items():
        factors[i] = Rows(tf.unstack(rows, axis=1))
    return [factors[i] for i in range(len(pieces))]


def _ruled(
    network: Network,
    pieces: list[tf.Tensor],
    taps: dict[int, list[Tap]],
    logits: tf.Tensor,
    c: tf.Tensor,
) -> dict[int, Factor]:
    """Rows of every variable that has rules, from one backward pass a cotangent."""
    first, *others = tf.unstack(c, axis=1)
    source = tf.identity(first)
    factors = _ruled_along(network, source, pieces, taps, logits)
    rows = [
        tf.nest.pack_sequence_as(factors, flat)
        for flat in copies(tf.nest.flatten(factors), source, others)
    ]
    return {i: factor.beside([row[i] for row in rows]) for i, factor in factors.items()}


def _ruled_along(
    network: Network,
    direction: tf.Tensor,
    pieces: list[tf.Tensor],
    taps: dict[int, list[Tap]],
    logits: tf.Tensor,
) -> dict[int, Factor]:
    """The same for one cotangent of every example."""
    outputs = {id(t.operation): t.output for each in taps.values() for t in each}
    backward = tf.gradients(
        logits, list(outputs.values()), grad_ys=direction, unconnected_gradients="zero"
    )
    deltas = dict(zip(outputs, backward, strict=True))
    factors: dict[int, Factor] = {}
    for i, each in taps.items():
        parts = [
            _through_entrywise(t, pieces[i], RULES[t.kind].factor(t, [deltas[id(t.operation)]]))
            for t in each
        ]
        if not parts:  # read by nothing that reaches the logits
            size = network.parameters[i].size
            parts = [Rows([tf.zeros([tf.shape(logits)[0], size], logits.dtype)])]
        factors[i] = Total(parts)
    return factors


def _through_entrywise(tap: Tap, piece: tf.Tensor, factor: Factor) -> Factor:
    """Rows of the variable itself, where the operation read an entrywise function of it."""
    if not tap.changed:
        return factor
    return Scaled(factor, tf.reshape(tf.gradients(tap.parameter, piece)[0], [-1]))


def _proven_rules(network: Network, probe: Any) -> _Folds:
    """The variables whose rules agree on a probe with what each example gives alone.

    Raises:
        UnsupportedModelError: as `PerExample`.
    """

    def one_row(logits: tf.Tensor) -> tf.Tensor:
        return proving_cotangent(logits)[:, None]

    def together(params: tf.Tensor, x: Any) -> tuple[list[Factor], _Folds]:
        pieces, logits = _forward(network, params, x)
        taps = _taps(pieces, x, logits, {})
        factors = _all_factors(network, pieces, x, logits, taps, one_row)
        return factors, {i: [tap.folds for tap in each] for i, each in taps.items()}

    truths = _single_rows(network, probe)
    of_probe, folds = traced_and_read(together, network.params, probe)
    rows = stacked(evaluated(of_probe(network.params, probe)))[:, 0]
    wrong = _unlike(network, rows, truths)
    return {i: each for i, each in folds.items() if i not in wrong}


def _single_rows(network: Network, probe: Any) -> npt.NDArray[Any]:
    """Rows `[B, P]` along that cotangent by differentiating one example of a probe at a time."""
    examples = [
        tf.nest.map_structure(lambda leaf, n=n: leaf[n : n + 1], probe)
        for n in range(tf.nest.flatten(probe)[0].shape[0])
    ]
    single = row_gradient(network, probe)
    gradients = zip(network.parameters, single.structured_outputs[1], strict=True)
    _refuse_cut_off([parameter.path for parameter, each in gradients if each is None])
    rows = [single(network.params, example)[1] for example in examples]
    return np.stack([np.concatenate([np.ravel(part) for part in row]) for row in rows])


def _unlike(network: Network, rows: npt.NDArray[Any], truths: npt.NDArray[Any]) -> set[int]:
    """Variables whose rows `[B, P]` are not the true ones, or are not proven by enough of them."""
    whole = np.max(np.abs(truths), axis=1)
    wrong: set[int] = set()
    for i, parameter in enumerate(network.parameters):
        part = slice(parameter.start, parameter.stop)
        gap = np.max(np.abs(rows[:, part] - truths[:, part]), axis=1)
        own = np.max(np.abs(truths[:, part]), axis=1)
        agree = gap <= rounding(own, whole, network.dtype)
        # Zero against zero proves nothing, and one row cannot be taken for another.
        if not (np.all(agree) and np.count_nonzero(own > 0) >= min(PROOFS, len(own))):
            wrong.add(i)
    return wrong


def _refuse_cut_off(cut_off: list[str]) -> None:
    if cut_off:
        raise UnsupportedModelError(
            "the output does not depend on some variables in a way that can be differentiated",
            expected="a path of differentiable operations from every variable to the logits",
            received=f"none from {cut_off}",
            remedy="remove @tf.function and stop_gradient from the layers' call; leave variables "
            "that are not used out with layers=...",
        )


def rows_by_example(
    network: Network, pieces: list[tf.Tensor], x: Any, c: tf.Tensor, indices: list[int]
) -> dict[int, tf.Tensor]:
    """Form rows of some variables by differentiating one example at a time, `[B, R, size]` each.

    Args:
        network: the network.
        pieces: its parameters.
        x: inputs `[B, ...]`.
        c: cotangents `[B, R, C]`, R static.
        indices: which variables.
    """
    if not indices:
        return {}

    def one(arguments: Any) -> list[tf.Tensor]:
        example, directions = arguments
        inner = [tf.identity(piece) for piece in pieces]
        chosen = [inner[i] for i in indices]
        logits = network.logits(inner, tf.nest.map_structure(lambda leaf: leaf[None], example))
        first, *others = tf.unstack(directions)
        source = tf.identity(first)
        gradients = tf.gradients(logits, chosen, grad_ys=source[None], unconnected_gradients="zero")
        row = [tf.reshape(gradient, [-1]) for gradient in gradients]
        rows = [row, *copies(row, source, others)]
        return [tf.stack(column) for column in zip(*rows, strict=True)]

    signature = [
        tf.TensorSpec([c.shape[1], network.parameters[i].size], pieces[0].dtype) for i in indices
    ]
    return dict(zip(indices, tf.map_fn(one, (x, c), fn_output_signature=signature), strict=True))
