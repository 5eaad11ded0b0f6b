"""The base of all curvatures: the mean over the data, the dense and the SciPy form."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse.linalg

from deltauq.data.batches import Batches
from deltauq.data.faulty_rows import first_faulty
from deltauq.errors import InvalidInputError, NumericalError
from deltauq.likelihoods import Likelihood, resolve_likelihood
from deltauq.network.jacobians import PerExample
from deltauq.network.network import Network
from deltauq.runtime.steps import Steps

__all__ = ["UNIT_COLUMNS", "CurvatureOperator"]

Array = npt.NDArray[Any]

#: Columns of the unit matrix that are multiplied at a time, where A is formed by products.
UNIT_COLUMNS = 256


class CurvatureOperator(abc.ABC):
    """A curvature A `[P, P]`, the mean of a per-example one over the data, as products A V.

    Products run in the network's precision, but for those of `Gram.in_double`.

    Args:
        network: the network; P is `network.n_params`.
        likelihood: a `Likelihood` or its name.
        data: the training set.
        scale: `[P]` or None: the operator is then diag(scale) A diag(scale), which is how the
            prior's metric enters (scale = lambda^-1/2).
        per_example: the network's row rules where they were checked before; None checks them when
            they are needed.
        buffer_bytes: memory for the per-example rows that are multiplied together; only speed
            depends on it.
        steps: of which products are some; they may be known from a fit that was interrupted. None
            computes all of them.

    Attributes:
        steps: as given.
        shape: (P, P).
        dtype: of A as a `scipy.sparse.linalg.LinearOperator`, float64.
        precision: of products.
    """

    #: No eigenvalue is negative, whatever the network.
    positive_semidefinite: ClassVar[bool]
    #: It holds second derivatives of the network.
    second_derivatives: ClassVar[bool] = False
    #: It is made of gradients of the loss alone: it is there where the loss has no curvature, and
    #: twice the noise of a regression quarters it, where a second derivative is halved.
    made_of_scores: ClassVar[bool] = False
    #: It takes the loss for convex in the logits, and is refused where an example shows otherwise.
    needs_convex_loss: ClassVar[bool] = False
    #: It is a sum over parts of the data, whatever the order of the examples.
    has_parts: ClassVar[bool] = True
    #: Its matrix is formed in one pass over the data, not by products with all columns of a unit.
    matrix_in_a_pass: ClassVar[bool] = False
    #: Vectors of length P that a product takes beside V and A V, however many columns they have.
    columns_per_product: ClassVar[int] = 0
    #: The solver of its eigenpairs, a name in `deltauq.curvature.solver_kinds.SOLVERS`; None takes
    #: "nystrom" where no eigenvalue is negative, and "lanczos" elsewhere.
    solver: ClassVar[str | None] = None

    def __init__(
        self,
        network: Network,
        likelihood: str | Likelihood,
        data: Batches,
        *,
        scale: Array | None = None,
        per_example: PerExample | None = None,
        buffer_bytes: int = 2**29,
        steps: Steps | None = None,
    ) -> None:
        self.likelihood = resolve_likelihood(likelihood)
        # Numbers of a regression are the output itself, an exponential at its end included.
        self.network = network if self.likelihood.link else network.without_link()
        self.data = data
        self.scale = np.ones(network.n_params) if scale is None else np.asarray(scale)
        if self.scale.shape != (network.n_params,):
            raise InvalidInputError(
                "scale has the wrong shape",
                expected=f"[P] = [{network.n_params}]",
                received=str(list(self.scale.shape)),
            )
        self.shape = (network.n_params, network.n_params)
        self.dtype = np.dtype(np.float64)
        self.precision = network.dtype
        self._per_example = per_example
        self._buffer_bytes = buffer_bytes
        self.steps = steps or Steps()
        self._trace: float | None = None

    @abc.abstractmethod
    def _sum(self, vectors: Array, out: Array) -> None:
        """Put the sum over the data of c_n w_n D A_n D V into `out`, D = diag(scale).

        Both `[P, b]`, C-contiguous, in the precision of products.
        """

    @staticmethod
    def rows_per_example(likelihood: Likelihood, n_outputs: int) -> int:
        """Number of vectors of length P an example that products are made of.

        One for each observation, unless a subclass says otherwise.

        Args:
            likelihood: of the labels.
            n_outputs: C.
        """
        return likelihood.positions

    @classmethod
    def most_rank(cls, likelihood: Likelihood, n_outputs: int, n_rows: int, n_params: int) -> int:
        """The rank of A at most: the per-example vectors that it is made of, or P.

        Args:
            likelihood: of the labels.
            n_outputs: C.
            n_rows: examples in the data.
            n_params: P.
        """
        each = cls.rows_per_example(likelihood, n_outputs) if cls.positive_semidefinite else 0
        return min(n_params, n_rows * each) if each else n_params

    @classmethod
    def of_linear_head(cls) -> type[CurvatureOperator]:
        """The form to take where the logits are h W + b and nothing else is uncertain.

        Itself, unless there is a cheaper form of the same matrix, whose `head` is that layer.
        """
        return cls

    def sampled(self, share: float, seed: Any) -> CurvatureOperator | None:
        """An estimate of A from a random share of the examples, for that share of the time.

        A solver may look for a subspace with it; what it says of A it takes from products with A.
        None, as here, where a subclass has no such estimate.

        Args:
            share: of the examples, above 0 and at most 1.
            seed: of the draw, as `numpy.random.default_rng` takes it.
        """
        return None

    def apart(self, *data: Batches) -> tuple[CurvatureOperator, ...]:
        """The parts of A that are sums over parts of the data, as `Batches.apart` gives them.

        Only where `has_parts`.
        """
        return tuple(self._over(part) for part in data)

    def _over(self, data: Batches) -> Self:
        """The same curvature of other data, compiled already, of which nothing is known yet."""
        made = copy.copy(self)
        made.data, made._trace = data, None
        return made

    def forget(self) -> None:
        """Give back memory that makes further products faster, where none are to follow soon."""

    @abc.abstractmethod
    def trace(self) -> float:
        """Trace of A, the sum of its eigenvalues, exact but for rounding."""

    def matvec(self, vector: Array) -> Array:
        """Multiply A by one vector, `[P] -> [P]`; one pass over the data."""
        vector = np.asarray(vector)
        return self.matmat(vector.reshape(-1, 1)).reshape(vector.shape)

    def matmat(self, vectors: Array, out: Array | None = None) -> Array:
        """Multiply A by several vectors at once; one pass over the data.

        Args:
            vectors: V `[P, b]`.
            out: where to put it, C-contiguous in the precision of products; None for a new array.

        Returns:
            A V `[P, b]`, float64 unless V is float32.

        Raises:
            InvalidInputError: V is not `[P, b]`, or `out` cannot take the result.
            NumericalError: a product is not finite.
        """
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[0] != self.shape[0]:
            raise InvalidInputError(
                "vectors has the wrong shape",
                expected=f"[P, b] with P = {self.shape[0]}",
                received=str(list(vectors.shape)),
            )
        asked = np.float32 if vectors.dtype == np.float32 else np.float64
        vectors = np.ascontiguousarray(vectors, self.precision)
        if out is None:
            out = np.empty_like(vectors)
        elif not (
            out.shape == vectors.shape and out.dtype == vectors.dtype and out.flags.c_contiguous
        ):
            raise InvalidInputError(
                "out cannot take the product",
                expected=f"a C-contiguous {vectors.dtype} array {list(vectors.shape)}",
                received=f"{out.dtype} {list(out.shape)}, strides {out.strides}",
                remedy=f"pass np.empty({vectors.shape}, {str(vectors.dtype)!r}), or None",
            )

        def multiply() -> None:
            self._sum(vectors, out)
            np.divide(out, self.data.n_examples, out=out)
            self._check_finite(out, "products")

        self._step("product", (vectors,), out, multiply)
        return out.astype(asked, copy=False)

    def _step(
        self, what: str, given: Sequence[Array], out: Array, compute: Callable[[], None]
    ) -> None:
        """Have an array filled by a step, and the trace known if it was found on the way.

        Args:
            what: is computed.
            given: what it depends on, beside the operator and its data.
            out: the array.
            compute: fills it.
        """
        trace = np.full(1, np.nan)

        def computed() -> None:
            compute()
            if self._trace is not None:
                trace[0] = self._trace

        name = f"{what} of {type(self).__name__}, {self.data.n_given} rows"
        is_new = self.steps.kept(name, (self._metric, *given), (out, trace), computed)
        if not is_new:  # from a fit that was interrupted
            self.data.listener.stages.recall(self.data.n_given)
        if np.isfinite(trace[0]):
            self._trace = float(trace[0])

    @cached_property
    def _metric(self) -> Array:
        """What tells a step from one in another metric: a mark of the scale."""
        return self.steps.mark(self.scale)

    def _check_finite(self, values: Array | float, what: str) -> None:
        """Refuse numbers of which one is not finite: NaN would pass for no curvature."""
        if np.isfinite(np.sum(values, dtype=np.float64)):
            return
        where = first_faulty(self.data, self._is_finite_on)
        raise NumericalError(
            "the curvature is not finite on the training data",
            expected=f"derivatives of the loss, and squares of them, that {self.network.dtype} "
            "holds, at every example",
            received=f"NaN or infinity in the {what} of the {type(self).__name__}"
            + (f"; first at {where}" if where else ""),
            remedy="scale the inputs or the labels; keep exponentials and powers in the loss and "
            "the model from overflowing, and roots away from zero, where their derivatives are "
            "infinite; or build the model in float64",
        )

    def _is_finite_on(self, data: Batches) -> bool:
        """Whether products and trace have a finite part from some of the data; True as a rule.

        A subclass that can tell says in this way where something is not finite.
        """
        return True

    def to_dense(self) -> Array:
        """Form the matrix A itself, float64 `[P, P]`, symmetric to the bit; P products."""
        size, dense = self.shape[0], np.empty(self.shape)
        for start in range(0, size, UNIT_COLUMNS):
            columns = np.eye(size, min(UNIT_COLUMNS, size - start), -start)
            dense[:, start : start + UNIT_COLUMNS] = self.matmat(columns)
        return (dense + dense.T) / 2

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """Wrap A as a `scipy.sparse.linalg.LinearOperator`, for `eigsh`, `cg` and the like."""
        return scipy.sparse.linalg.LinearOperator(
            self.shape,
            matvec=self.matvec,
            rmatvec=self.matvec,
            matmat=self.matmat,
            rmatmat=self.matmat,
            dtype=self.dtype,
        )
