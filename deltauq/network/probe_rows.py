"""Rows on which a model and its derivatives are probed before anything is believed of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.arrays import empty_error
from deltauq.data.batch_reader import cut, first_rows, n_rows_of
from deltauq.data.inputs import checked_inputs
from deltauq.data.streams import Stream, as_inputs, next_element
from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.network.adapters import state_use
from deltauq.network.graph import traced
from deltauq.network.inspection import row_spec
from deltauq.network.network import Network

__all__ = [
    "POOL",
    "PROOFS",
    "gradient_along_outputs",
    "probe_rows",
    "proving_cotangent",
    "rounding",
    "row_gradient",
]

Array = npt.NDArray[Any]

#: Rows of a probe, and how many there may be where variables have a derivative at few of them.
_ROWS, _MOST_ROWS = 3, 8

#: Rows at which a variable has a derivative other than zero, so that a comparison proves it.
PROOFS = 2

#: The first rows of the data, of which a probe is made.
POOL = 16

#: What a model may raise where it cannot be called, traced or differentiated.
_FAILURES = (
    ValueError,
    TypeError,
    AttributeError,  # several outputs have no last operation
    LookupError,
    NotImplementedError,
    tf.errors.OpError,
)


def probe_rows(network: Network, x: Any) -> Any:
    """Make different rows like the first ones of the data, on which derivatives show.

    The first rows with a tenth of the inputs' spread as seeded noise (integers are rolled along
    their second axis): no two are alike and none is blank. Noise may leave the domain of a log, a
    root or a lookup; then mixtures of two rows, which stay in every convex domain; then the rows
    themselves. A row at which the model fails, or at which its logits or their derivatives are not
    finite, is never taken: NaN passes for anything. Rows at which every variable has a derivative
    other than zero are preferred, because zero against zero proves nothing.

    Args:
        network: the network.
        x: inputs `[N, ...]`, an array or a nest of them, or a dataset, of which the first rows are
            read.

    Returns:
        Tensors `[n, ...]` as the model takes them, n = 3 or a few more.

    Raises:
        InvalidInputError: empty data, or the model's output is not finite at any of those rows.
        UnsupportedModelError: derivatives of its output are not finite at any of them.
    """
    head = _head(x, network.dtype)
    noisy = _noisy(head)
    try:
        derivatives = _derivatives(network, noisy)
    except _FAILURES:
        derivatives = None
    if derivatives is None:  # inspecting the model on these rows says what is wrong
        return _tensors(noisy)
    rows: list[Any] = []
    proven: list[Array] = []
    for row in _candidates(head, noisy):
        sizes = _finite_derivatives(derivatives, row)
        if sizes is None or any(_alike(row, other) for other in rows):
            continue
        rows.append(row)
        proven.append(sizes > 0)
        if sum(np.all(each) for each in proven) == _ROWS:
            break
    if not rows:
        _refuse_if_not_finite(network, derivatives, head)
        return _tensors(noisy)
    chosen = [rows[k] for k in _telling(proven)]
    chosen = [chosen[k % len(chosen)] for k in range(max(_ROWS, len(chosen)))]
    return _tensors(tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *chosen))


def rounding(own: Array, whole: Array, dtype: str) -> Array:
    """How far two computations of one derivative may lie apart by rounding, with a wide margin.

    Half the digits of its own size, since sums cancel in it, and some units of the last place of
    the largest derivative beside it, which went through the same sums.

    Args:
        own: sizes of the derivative.
        whole: of the largest one beside it.
        dtype: of the network.
    """
    eps = np.finfo(dtype).eps
    return np.asarray(np.sqrt(eps) * own + 100 * eps * whole)


def proving_cotangent(logits: tf.Tensor) -> tf.Tensor:
    """Cotangent `[B, C]` along which derivatives are compared, cos(c), c = 1..C, at every row.

    Any fixed vector without zeros or equal entries would do: no output is missed, and none can be
    taken for another.
    """
    return tf.ones_like(logits) * tf.constant(np.cos(np.arange(logits.shape[1]) + 1), logits.dtype)


def gradient_along_outputs(
    network: Network, pieces: Sequence[tf.Tensor], logits: tf.Tensor
) -> list[tf.Tensor]:
    """The gradient along `proving_cotangent` in each of the parameters; in a trace only.

    Args:
        network: the network.
        pieces: its parameters.
        logits: z `[B, C]`, made of them.
    """
    direction = proving_cotangent(logits)
    found = tf.gradients(logits, pieces, grad_ys=direction, unconnected_gradients="zero")
    return [tf.convert_to_tensor(part) for part in found]  # of a lookup they are single rows


def row_gradient(network: Network, rows: Any) -> Any:
    """The compiled gradient of one row's logits along `proving_cotangent`, traced once.

    Which rows make a probe, and what each of its rows gives alone, are asked of the same function:
    tracing it a second time takes longer than anything else that is done with it.

    Args:
        network: the network, which keeps it.
        rows: some rows, or the specs of some.

    Returns:
        A `ConcreteFunction` of the parameters `[P]` and one row `[1, ...]`: the logits `[1, C]` and
        a list of the variables' gradients, None for those on which the logits do not depend.
    """

    def trace(params: tf.Tensor, x: Any) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        pieces = network.unflatten(params)
        logits = network.read_logits(params, pieces, x)
        parts = tf.gradients(logits, pieces, grad_ys=proving_cotangent(logits))
        # Of a lookup they are single rows.
        return logits, [None if part is None else tf.convert_to_tensor(part) for part in parts]

    spec, kept = row_spec(rows), network.row_gradients
    if str(spec) not in kept:
        kept[str(spec)] = traced(trace, network.params, spec)
    return kept[str(spec)]


def _head(x: Any, dtype: str) -> Any:
    """The first rows of the data, arrays."""
    source = as_inputs(x)
    if isinstance(source, Stream):
        return first_rows(_checked_parts(source, dtype), POOL)
    leaves = tf.nest.flatten(source.nest)
    if any(leaf.ndim == 0 for leaf in leaves):
        raise empty_error(f"shapes {[list(leaf.shape) for leaf in leaves]}")
    return checked_inputs(tf.nest.map_structure(lambda leaf: leaf[:POOL], source.nest), dtype)


def _checked_parts(source: Stream, dtype: str) -> Iterator[Any]:
    """The inputs of a dataset, batch by batch; an error counts its row from the first one."""
    n_parts, first_row = 0, 0
    parts = source.examples(POOL)
    while (part := next_element(parts, n_parts, first_row)) is not None:
        rows = checked_inputs(source.nest(part[0]), dtype, first_row)
        yield rows
        n_parts += 1
        first_row += n_rows_of(rows)


def _candidates(head: Any, noisy: Any) -> Iterator[Any]:
    """Rows `[1, ...]`, the better ones first."""
    for rows in (noisy, _mixed(head), head):
        yield from cut(rows, 1)


def _noisy(head: Any) -> Any:
    """The first rows, repeated where there are fewer than enough, and made different."""
    rng = np.random.default_rng(0)

    def different(leaf: Array) -> Array:
        rows = leaf[np.arange(_ROWS) % len(leaf[:_ROWS])]
        if rows.dtype.kind == "f":
            spread = float(np.std(rows)) or 1.0
            return (rows + 0.1 * spread * rng.standard_normal(rows.shape)).astype(rows.dtype)
        if rows.ndim > 1:
            return np.stack([np.roll(row, k, axis=0) for k, row in enumerate(rows)])
        return rows

    return tf.nest.map_structure(different, head)


def _mixed(head: Any) -> Any:
    """Every row mixed with the next one, the same shares in all its inputs; integers stay."""
    share = np.random.default_rng(1).uniform(0.25, 0.75, POOL)

    def mixed(leaf: Array) -> Array:
        if leaf.dtype.kind != "f":
            return leaf
        each = share[: len(leaf)].reshape(-1, *[1] * (leaf.ndim - 1))
        return (each * leaf + (1.0 - each) * np.roll(leaf, -1, axis=0)).astype(leaf.dtype)

    return tf.nest.map_structure(mixed, head)


def _derivatives(network: Network, rows: Any) -> Callable[[Any], tuple[Array, Array]] | None:
    """One row -> its logits `[C]` and the size of every variable's derivative `[n]`.

    None where a call would change the user's model, or draw from its generator.
    """
    compiled = row_gradient(network, rows)
    if any(state_use(compiled.graph)):
        return None

    def evaluate(row: Any) -> tuple[Array, Array]:
        logits, parts = compiled(network.params, _tensors(row))
        with np.errstate(over="ignore"):  # infinity is seen by who asked
            # A sum, because the largest of some numbers and NaN may be a number.
            sizes = [0.0 if part is None else np.sum(np.abs(part.numpy())) for part in parts]
        return logits.numpy()[0], np.array(sizes)

    return evaluate


def _finite_derivatives(
    derivatives: Callable[[Any], tuple[Array, Array]], row: Any
) -> Array | None:
    """The sizes of the variables' derivatives at a row; None where anything is not finite."""
    try:
        logits, sizes = derivatives(row)
    except tf.errors.OpError:  # a lookup of what is not there
        return None
    return sizes if np.all(np.isfinite(logits)) and np.all(np.isfinite(sizes)) else None


def _telling(proven: list[Array]) -> list[int]:
    """Which rows to take: the next one that adds most to what is not proven yet."""
    counts, chosen = np.zeros(len(proven[0])), list[int]()
    while len(chosen) < min(_MOST_ROWS, len(proven)):
        gains = np.sum(np.array(proven) & (counts < PROOFS), axis=1)
        gains[chosen] = -1
        best = int(np.argmax(gains))
        if len(chosen) >= _ROWS and gains[best] == 0:
            break
        chosen.append(best)
        counts += proven[best]
    return chosen


def _refuse_if_not_finite(
    network: Network, derivatives: Callable[[Any], tuple[Array, Array]], head: Any
) -> None:
    """Say what is not finite at the first rows of the data, where the model can be called."""
    try:
        found = [derivatives(row) for row in cut(head, 1)]
    except tf.errors.OpError:  # inspecting the model says so
        return
    rows = f"the first {len(found)} rows" if len(found) > 1 else "the first row"
    logits = np.stack([each for each, _ in found])
    if not np.all(np.isfinite(logits)):
        raise InvalidInputError(
            "the model's output is not finite on the data",
            expected="finite numbers at every row that the model was trained on",
            received=f"{np.count_nonzero(~np.isfinite(logits))} of {logits.size} outputs of {rows} "
            "that are NaN or infinite",
            remedy="prepare x as for training; look for a log, a root or a division that leaves "
            "its domain, for overflow, and for weights that diverged",
        )
    sizes = np.stack([each for _, each in found])
    paths = [
        parameter.path
        for parameter, finite in zip(
            network.parameters, np.all(np.isfinite(sizes), axis=0), strict=True
        )
        if not finite
    ]
    raise UnsupportedModelError(
        "the derivatives of the model's output are not finite",
        expected="finite derivatives in every uncertain variable at the rows of the data",
        received=f"NaN or infinity at {rows} for {paths}",
        remedy="keep roots, norms and powers inside the model away from zero, as "
        "sqrt(x + 1e-6) does; or leave those variables out with layers=...",
    )


def _alike(row: Any, other: Any) -> bool:
    pairs = zip(tf.nest.flatten(row), tf.nest.flatten(other), strict=True)
    return all(np.array_equal(leaf, like) for leaf, like in pairs)


def _tensors(nest: Any) -> Any:
    return tf.nest.map_structure(tf.constant, nest)
