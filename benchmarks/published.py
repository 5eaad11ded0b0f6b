"""The published algorithm (arXiv 1912.00832, 1905.05559), written anew from the papers.

As they describe it: OPG eigenpairs by incremental principal components of per-example gradients,
exact Hessian eigenpairs by ARPACK over one Hessian-vector product at a time, predictions from the
whole Jacobian, class by class. Vectorised over examples, so that the comparison is fair.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse.linalg
import tensorflow as tf
from sklearn.decomposition import IncrementalPCA


class Published:
    """The published algorithm on one network.

    Args:
        network: a `deltauq.Network`, here only for the layout of the flat parameters.
        likelihood: gives the loss.
    """

    def __init__(self, network, likelihood):
        self.network, self.likelihood = network, likelihood
        model = network.model

        def logits_of(params, x):
            """Keras' own call, with TensorFlow's own gradients."""
            pieces, state = network.unflatten(params), model.non_trainable_variables
            return model.stateless_call(pieces, state, x, training=False)[0]

        @tf.function(reduce_retracing=True)
        def gradients(x, y):
            def one(arguments):
                x, y = arguments
                params = tf.identity(network.params)
                logits = logits_of(params, x[None])
                return tf.gradients(likelihood.loss(logits, y[None]), params)[0]

            return tf.vectorized_map(one, (x, y))

        @tf.function(reduce_retracing=True)
        def jacobian_of_class(x, c):
            def one(x):
                params = tf.identity(network.params)
                logits = logits_of(params, x[None])
                return tf.gradients(logits[0, c], params)[0]

            return tf.vectorized_map(one, x)

        @tf.function(reduce_retracing=True)
        def product(x, y, v):
            params = tf.identity(network.params)
            loss = likelihood.loss(logits_of(params, x), y)
            gradient = tf.gradients(tf.reduce_sum(loss), params)[0]
            return tf.gradients(gradient, params, grad_ys=v)[0]

        @tf.function(reduce_retracing=True)
        def logits(x):
            return logits_of(network.params, x)

        self.gradients, self._jacobian, self.product = gradients, jacobian_of_class, product
        self._logits = logits

    def opg_eigenpairs(self, x, y, rank, batch_size=200):
        """Principal components of the gradients; values `[K]` and vectors `[P, K]`."""
        pca = IncrementalPCA(n_components=rank, batch_size=batch_size)
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            pca.partial_fit(self.gradients(x[rows], tf.constant(y[rows])).numpy())
        return pca.explained_variance_ * (len(x) - 1) / len(x), pca.components_.T

    def hessian_eigenpairs(self, x, y, rank, batch_size=500):
        """ARPACK's leading eigenpairs, and the number of products they took."""
        batches = [
            (tf.constant(x[i : i + batch_size]), tf.constant(y[i : i + batch_size]))
            for i in range(0, len(x), batch_size)
        ]
        products = 0

        def matvec(v):
            nonlocal products
            products += 1
            v = tf.constant(v.ravel(), self.network.dtype)
            return sum(self.product(*batch, v).numpy() for batch in batches) / len(x)

        size = self.network.n_params
        operator = scipy.sparse.linalg.LinearOperator((size, size), matvec, dtype=np.float32)
        values, vectors = scipy.sparse.linalg.eigsh(operator, k=rank, which="LA")
        return values[::-1], vectors[:, ::-1], products

    def predict(self, x, values, vectors, l2, n_examples, batch_size=50):
        """Covariances of the probabilities `[N, C, C]`."""
        weights = 1 / (values + l2)
        tail = (1 / l2 + 1 / (values[-1] + l2)) / 2
        found = []
        for start in range(0, len(x), batch_size):
            some = tf.constant(x[start : start + batch_size])
            logits = self._logits(some)
            rows = np.stack(
                [self._jacobian(some, tf.constant(c)).numpy() for c in range(logits.shape[1])],
                axis=1,
            )
            along = rows @ vectors
            covariance = (along * (weights - tail)) @ np.swapaxes(along, 1, 2)
            covariance += tail * rows @ np.swapaxes(rows, 1, 2)
            slope = self.likelihood.mean_jacobian(logits).numpy()
            found.append(slope @ covariance @ slope / n_examples)
        return np.concatenate(found)
