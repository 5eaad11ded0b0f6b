"""The normal distribution of the weights around those that were trained."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltauq.covariance import ParameterCovariance

__all__ = ["posterior"]


def posterior(params: tf.Tensor, covariance: ParameterCovariance) -> Any:
    """N(w^, Sigma), a `tfp.distributions.MultivariateNormalLinearOperator` `[P]`.

    Args:
        params: the trained weights `[P]`.
        covariance: of the weights.

    Raises:
        NotPositiveDefiniteError: the covariance has no density.
    """
    import tensorflow_probability as tfp

    return tfp.distributions.MultivariateNormalLinearOperator(
        loc=params, scale=covariance.to_root_operator(), name="posterior"
    )
