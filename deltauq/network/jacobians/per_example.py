"""Per-example vector-Jacobian products of the logits, many examples at once.

A trace of the forward pass shows which operation reads each variable; one backward pass for each
cotangent gives that operation's own cotangent, and a small rule per operation type makes rows of
it: for y = a W the row of W is a (x) delta. Whatever no rule covers is differentiated example by
example. Before use the rules are compared with plain automatic differentiation on real rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from deltauq.errors import UnsupportedModelError
from deltauq.network.graph import copies, reached_from, traced
from deltauq.network.jacobians.factors import Factor, Rows, Scaled, Total, evaluated, stacked
from deltauq.network.jacobians.rules import RULES
from deltauq.network.jacobians.taps import Tap, find_taps
from deltauq.network.network import Network

__all__ = ["Cotangents", "PerExample", "rows_by_example"]

#: Maps logits `[B, C]` to the cotangents `[B, R, C]` whose rows are wanted (R static).
Cotangents = Callable[[tf.Tensor], tf.Tensor]

#: Rows in which a rule must agree with a derivative other than zero before it is believed.
_PROOFS = 2

_OPERANDS = {operation: rule.operands for operation, rule in RULES.items()}


class PerExample:
    """Rows c^T J `[B, R, P]` of every example, variable by variable.

    Args:
        network: the network.
        probe: a few different input rows on which the rules are compared with automatic
            differentiation; a variable whose rows differ goes to the example-by-example path.

    Attributes:
        probe: those rows.
        mapped: paths of the variables on the example-by-example path.
    """

    def __init__(self, network: Network, probe: Any) -> None:
        self._network = network
        self.probe = probe
        self._mapped: set[int] = set()  # tracing on the probe adds the variables without a rule
        self._folds: dict[tuple[int, int], int] = {}
        self._mapped |= self._with_wrong_rule(probe)

    @property
    def mapped(self) -> list[str]:
        """Paths of the variables that no rule covers."""
        return [self._network.parameters[i].path for i in sorted(self._mapped)]

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
        pieces = [tf.identity(piece) for piece in self._network.unflatten(params)]
        logits = self._network.logits(pieces, x)
        c = tf.stop_gradient(cotangents(logits))
        taps = self._taps(pieces, x, logits)
        factors = self._ruled(pieces, taps, logits, c)
        for i, rows in rows_by_example(self._network, pieces, x, c, sorted(self._mapped)).items():
            factors[i] = Rows(tf.unstack(rows, axis=1))
        return [factors[i] for i in range(len(pieces))], logits

    def _taps(self, pieces: list[tf.Tensor], x: Any, logits: tf.Tensor) -> dict[int, list[Tap]]:
        """Where each variable that has rules is read; a static batch teaches what is folded."""
        from_data = reached_from(tf.nest.flatten(x))
        found: dict[int, list[Tap]] = {}
        for i, piece in enumerate(pieces):
            taps = find_taps(piece, from_data, _OPERANDS)
            if taps is None or not all(RULES[t.kind].when(t) for t in taps):
                self._mapped.add(i)
                continue
            for k, tap in enumerate(taps):
                if logits.shape[0] is not None and tap.output.shape[0] is not None:
                    self._folds[i, k] = max(1, tap.output.shape[0] // logits.shape[0])
            found[i] = [
                replace(tap, folds=self._folds.get((i, k), 1)) for k, tap in enumerate(taps)
            ]
        return {i: taps for i, taps in found.items() if i not in self._mapped}

    def _ruled(
        self,
        pieces: list[tf.Tensor],
        taps: dict[int, list[Tap]],
        logits: tf.Tensor,
        c: tf.Tensor,
    ) -> dict[int, Factor]:
        """Rows of every variable that has rules, from one backward pass a cotangent."""
        first, *others = tf.unstack(c, axis=1)
        source = tf.identity(first)
        factors = self._ruled_along(source, pieces, taps, logits)
        rows = [
            tf.nest.pack_sequence_as(factors, flat)
            for flat in copies(tf.nest.flatten(factors), source, others)
        ]
        return {i: factor.beside([row[i] for row in rows]) for i, factor in factors.items()}

    def _ruled_along(
        self,
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
                size = self._network.parameters[i].size
                parts = [Rows([tf.zeros([tf.shape(logits)[0], size], logits.dtype)])]
            factors[i] = Total(parts)
        return factors

    def _with_wrong_rule(self, probe: Any) -> set[int]:
        """Variables whose rows in a batch are not what each example gives alone."""
        network = self._network
        cut_off: list[str] = []

        def pattern(logits: tf.Tensor) -> tf.Tensor:
            columns = tf.range(1, logits.shape[1] + 1, dtype=logits.dtype)
            return tf.ones_like(logits)[:, None, :] * tf.cos(columns)

        def together(params: tf.Tensor, x: Any) -> list[Factor]:
            return self.factors(params, x, pattern)[0]

        def alone(params: tf.Tensor, x: Any) -> tf.Tensor:
            pieces = [tf.identity(piece) for piece in network.unflatten(params)]
            logits = network.logits(pieces, x)
            gradients = tf.gradients(logits, pieces, grad_ys=pattern(logits)[:, 0])
            cut_off.extend(
                parameter.path
                for parameter, gradient in zip(network.parameters, gradients, strict=True)
                if gradient is None
            )
            found = [
                tf.zeros_like(piece) if gradient is None else gradient
                for piece, gradient in zip(pieces, gradients, strict=True)
            ]
            return tf.concat([tf.reshape(gradient, [-1]) for gradient in found], axis=0)

        examples = [
            tf.nest.map_structure(lambda leaf, n=n: leaf[n : n + 1], probe)
            for n in range(tf.nest.flatten(probe)[0].shape[0])
        ]
        params = network.params
        single = traced(alone, params, examples[0])
        _refuse_cut_off(cut_off)
        of_probe = traced(together, params, probe)
        rows = stacked(evaluated(of_probe(params, probe)))[:, 0]
        truths = np.stack([single(params, example).numpy() for example in examples])
        eps, whole = np.finfo(network.dtype).eps, np.max(np.abs(truths), axis=1)
        wrong: set[int] = set()
        for i, parameter in enumerate(network.parameters):
            part = slice(parameter.start, parameter.stop)
            gap = np.max(np.abs(rows[:, part] - truths[:, part]), axis=1)
            own = np.max(np.abs(truths[:, part]), axis=1)
            agree = gap <= np.sqrt(eps) * own + 100 * eps * whole
            # Zero against zero proves nothing, and one row cannot be taken for another.
            if not (np.all(agree) and np.count_nonzero(own > 0) >= min(_PROOFS, len(own))):
                wrong.add(i)
        return wrong


def _through_entrywise(tap: Tap, piece: tf.Tensor, factor: Factor) -> Factor:
    """Rows of the variable itself, where the operation read an entrywise function of it."""
    if not tap.changed:
        return factor
    return Scaled(factor, tf.reshape(tf.gradients(tap.parameter, piece)[0], [-1]))


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
