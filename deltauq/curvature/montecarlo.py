"""The GGN from labels drawn from the predictions: cheap with many classes, and noisy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from deltauq.curvature.gram import Gram
from deltauq.data import Batch
from deltauq.errors import InvalidInputError
from deltauq.jacobians import Factor
from deltauq.tracing import Compiled

__all__ = ["MonteCarloGGN"]


class MonteCarloGGN(Gram):
    """An unbiased estimate of the GGN: the OPG of labels drawn from the model's own predictions.

    Takes `draws` rows an example where the GGN takes one for every class. It is not the GGN: its
    inverse is biased upwards, one draw made standard errors 1.7 times too large in a test, 16 draws
    1.1 times. The labels are fixed by the seed, in the order of the data, so that every pass sees
    the same matrix; a dataset must not be shuffled anew in each pass.

    Args:
        *arguments: as for `GGN`.
        draws: labels drawn for an example.
        seed: of the draws.
        **options: as for `GGN`.
    """

    def __init__(self, *arguments: Any, draws: int = 1, seed: int = 0, **options: Any) -> None:
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise InvalidInputError(
                "draws is not understood", expected="a whole number >= 1", received=repr(draws)
            )
        super().__init__(*arguments, **options)
        self.draws = draws
        self.seed = seed
        dtype = self.network.dtype
        self._n_outputs = self.network.count_outputs(self.data.spec.x)
        self._compiled_draws = Compiled(
            self._drawn_factors,
            tf.TensorSpec([self.network.n_params], dtype),
            self.data.spec,
            tf.TensorSpec([None, draws, self._n_outputs], dtype),
        )

    def _factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Residuals of labels y `[B, draws, ...]`, `[B, draws, C]`."""
        columns = [self.likelihood.residual(logits, label) for label in tf.unstack(y, axis=1)]
        return tf.stack(columns, axis=1) / self.draws**0.5

    def _drawn_factors(self, params: tf.Tensor, batch: Batch, uniforms: tf.Tensor) -> list[Factor]:
        def factor(logits: tf.Tensor) -> tf.Tensor:
            return self._factor(logits, self.likelihood.draw(logits, uniforms))

        return self._factors_along(params, batch, factor)

    def _batch_factors(self) -> Iterator[list[Factor]]:
        rng = np.random.default_rng(self.seed)
        for batch in self.data:
            shape = (len(batch.y), self.draws, self._n_outputs)
            uniforms = rng.random(shape).astype(self.network.dtype)
            yield self._compiled_draws(self.network.params, batch, tf.constant(uniforms))
