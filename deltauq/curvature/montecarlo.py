"""The GGN from random combinations of its rows: cheap with many classes, and noisy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from deltauq.curvature.gram import GGN
from deltauq.data.batches import Batch
from deltauq.errors import InvalidInputError
from deltauq.network.graph import Compiled
from deltauq.network.jacobians import Factor, evaluated

__all__ = ["MonteCarloGGN"]


class MonteCarloGGN(GGN):
    """An unbiased estimate of the GGN: `draws` rows an example, where that of a softmax has C - 1.

    With F F^T the loss's second derivative in the logits and e a vector of independent signs,
    E[e e^T] = I, so that rows J^T F e have the mean J^T F F^T J of their outer products: the GGN,
    for every likelihood, whatever the labels, their smoothing and the scale of the loss. (Gradients
    of labels drawn from the prediction have that mean only where the loss is the negative
    log-likelihood of those labels.) Source: Hutchinson 1990, "A stochastic estimator of the trace";
    Martens et al. 2012, "Estimating the Hessian by back-propagating curvature".

    It is not the GGN: its inverse is biased upwards, the more the fewer draws. The signs are fixed
    by the seed, in the order of the data, so that every pass sees the same matrix; a dataset must
    not be shuffled anew in each pass.

    Args:
        *arguments: as for `GGN`.
        draws: D, random combinations for an example.
        seed: of the signs.
        **options: as for `GGN`.
    """

    has_parts = False

    def __init__(self, *arguments: Any, draws: int = 1, seed: int = 0, **options: Any) -> None:
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise InvalidInputError(
                "draws is not understood", expected="a whole number >= 1", received=repr(draws)
            )
        super().__init__(*arguments, **options)
        self.draws = draws
        self.seed = seed
        dtype = self.network.dtype
        n_outputs = self.network.count_outputs(self.data.spec.x)
        self._columns = self.likelihood.n_rows(n_outputs)
        self._compiled_draws = Compiled(
            self._drawn_factors,
            tf.TensorSpec([self.network.n_params], dtype),
            self.data.spec,
            tf.TensorSpec([None, self._columns, draws], dtype),
        )

    def _drawn_factors(self, params: tf.Tensor, batch: Batch, signs: tf.Tensor) -> list[Factor]:
        """Rows of a batch from signs `[B, R, D]`, one for every column of F and draw."""
        # E[(F e)(F e)^T] = F E[e e^T] F^T = F F^T, averaged over the draws.
        mixed = self._roots(batch, self._columns) * signs / self.draws**0.5

        def combined(logits: tf.Tensor) -> tf.Tensor:
            columns = self.likelihood.hessian_factor_times(logits, batch.y, mixed)
            return tf.linalg.matrix_transpose(columns)

        return self._factors_along(params, batch, combined)

    def sampled(self, share: float, seed: Any) -> None:
        """No share of the examples estimates it: signs go by the order in which all are read."""

    def row_factors(self) -> Iterator[list[Factor]]:
        """Rows of one batch after the other, mixed by the signs of the seed."""
        rng = np.random.default_rng(self.seed)
        for batch in self.data:
            uniforms = rng.random((len(batch.y), self._columns, self.draws))
            signs = np.where(uniforms < 0.5, -1.0, 1.0).astype(self.network.dtype)
            factors = self._compiled_draws(self.network.params, batch, tf.constant(signs))
            yield evaluated(factors)
