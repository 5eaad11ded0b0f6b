"""Posteriors and products by laplace-torch, laplax and curvlinops beside ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from deltauq.curvature import GGN, OPG, Hessian
from evidence.carried import NOISE, Carried
from evidence.checks import Array, Check, covariance


@contextmanager
def _torch_in_double() -> Iterator[None]:
    """Have torch make float64 tensors, as laplace-torch leaves it the choice."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _tensors(case: Carried) -> tuple[Any, Any, Any]:
    """Inputs, labels and inputs to predict as torch takes them, channels first."""
    import torch

    def first(x: Array) -> Any:
        order = (0, 3, 1, 2) if x.ndim == 4 else range(x.ndim)
        return torch.from_numpy(np.ascontiguousarray(x.transpose(*order)))

    return first(case.x), torch.from_numpy(case.y), first(case.x_new)


def _spread(prediction: Any) -> Array:
    """Covariance of the outputs."""
    found = getattr(prediction, "logit_covariance", None)
    return np.asarray(prediction.covariance if found is None else found)


def laplace_torch(case: Carried) -> Iterator[Check]:
    """Its posterior with the full matrix, what follows from it, and the last layer's."""
    import torch
    from laplace import Laplace
    from laplace.curvature import CurvlinopsEF, CurvlinopsGGN, CurvlinopsHessian

    network, places = case.in_torch()
    x, y, x_new = _tensors(case)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64)
    kind = "regression" if case.is_regression else "classification"
    options: dict[str, Any] = {"prior_precision": case.prior_precision}
    if case.is_regression:
        options["sigma_noise"] = float(np.sqrt(NOISE))
    backends: dict[str, tuple[str, Any, dict[str, Any]]] = {"GGN": ("ggn", CurvlinopsGGN, {})}
    keeping = {"negative_curvature": "keep"}
    backends["Hessian"] = ("hessian", CurvlinopsHessian, keeping)
    if not case.is_regression:  # a factor of theirs there is told in the page
        backends["OPG"] = ("opg", CurvlinopsEF, {})

    def fit(subset: str, backend: Any) -> Any:
        found = Laplace(network, kind, subset, "full", backend=backend, **options)
        found.fit(loader)
        return found

    with _torch_in_double():
        for name, (curvature, backend, ours_too) in backends.items():
            theirs, ours = fit("all", backend), case.fit(curvature, **ours_too)
            weights = ours.covariance.to_dense().numpy()[np.ix_(places, places)]
            yield covariance(f"{name}: weights", weights, theirs.posterior_covariance.numpy())
            slopes = theirs.backend.jacobians(x_new)[0]
            found = theirs.functional_variance(slopes).numpy()
            yield covariance(f"{name}: outputs", _spread(ours.predict(case.x_new)), found)
            value = float(theirs.log_marginal_likelihood())
            yield Check(f"{name}: evidence", float(ours.log_marginal_likelihood()), value)
        theirs, ours = fit("all", CurvlinopsGGN), case.fit("ggn")
        together = theirs.functional_covariance(slopes).numpy()
        joint = _spread(ours.predict_joint(case.x_new)).reshape(together.shape)
        yield covariance("GGN: outputs of several inputs", joint, together)
        if not case.is_regression:
            prediction = ours.predict(case.x_new)
            for method in ("probit", "bridge"):
                p = theirs(x_new, link_approx=method).detach().numpy()
                yield Check(f"GGN: {method}", prediction.predictive(method).probabilities, p, 1.0)
        if len(network) > 1:  # it asks for a layer before the last one
            theirs, ours = fit("last_layer", CurvlinopsGGN), case.fit("ggn", layers="last")
            slopes = theirs.backend.last_layer_jacobians(x_new)[0]
            found = theirs.functional_variance(slopes).numpy()
            yield covariance("GGN: outputs, last layer", _spread(ours.predict(case.x_new)), found)


def _cross_entropies(logits: Any, y: Any) -> Any:
    """Cross-entropy of all inputs in JAX, summed."""
    import jax

    return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).sum()


def laplax(case: Carried) -> Iterator[Check]:
    """Its posterior with the full GGN, what follows from it, and products with the Hessian."""
    import jax
    import laplax as package
    from laplax.curv.hessian import create_hessian_mv
    from laplax.eval import pushforward
    from loguru import logger

    logger.disable("laplax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        function, params = case.in_jax()
        data = {"input": jax.numpy.asarray(case.x), "target": jax.numpy.asarray(case.y)}
        loss = "mse" if case.is_regression else "cross_entropy"
        posterior, _ = package.laplace(function, params, data, loss_fn=loss, curv_type="full")
        prior = {"prior_prec": case.prior_precision}
        if case.is_regression:
            prior["sigma_squared"] = 0.5 / NOISE  # their loss is the square, without 1 / (2 s)
        scale = np.asarray(posterior(prior).state["scale"])
        ours = case.fit("ggn")
        yield covariance("GGN: weights", ours.covariance.to_dense().numpy(), scale @ scale.T)
        steps = [pushforward.lin_setup, pushforward.lin_pred_mean, pushforward.lin_pred_cov]
        averages = {} if case.is_regression else {"special_pred_type": "mean_field_0"}
        steps += [pushforward.lin_pred_var, pushforward.lin_special_pred_act] if averages else []
        predict = pushforward.set_lin_pushforward(
            function, params, posterior, prior, pushforward_fns=steps, **averages
        )
        theirs = jax.vmap(predict)(jax.numpy.asarray(case.x_new))
        prediction = ours.predict(case.x_new)
        yield covariance("GGN: outputs", _spread(prediction), np.asarray(theirs["pred_cov"]))
        if averages:
            p = prediction.predictive("probit").probabilities
            yield Check("GGN: probit", p, np.asarray(theirs["special_pred_act"]), 1.0)
        # Its own cross-entropy is that of a single input.
        named = loss if case.is_regression else _cross_entropies
        product = create_hessian_mv(function, params, data, named)
        vector = np.random.default_rng(0).normal(size=case.network.n_params)
        pieces = [jax.numpy.asarray(piece) for piece in case.network.unflatten(vector)]
        summed = np.concatenate([np.ravel(piece) for piece in product(pieces)])
        unit = len(case.x) * (2 * NOISE if case.is_regression else 1.0)
        hessian = Hessian(case.network, case.likelihood, case.data)
        yield Check("Hessian: products", unit * hessian.matvec(vector), summed)
    finally:
        jax.config.update("jax_enable_x64", before)


def curvlinops(case: Carried) -> Iterator[Check]:
    """Its products with the curvatures of a mean loss, in batches of which the last is smaller."""
    import torch
    from curvlinops import EFLinearOperator, GGNLinearOperator, HessianLinearOperator

    network, places = case.in_torch()
    x, y, _ = _tensors(case)
    squares = case.is_regression
    loss = torch.nn.MSELoss() if squares else torch.nn.CrossEntropyLoss()
    batches = list(zip(x.split(64), y.split(64), strict=True))
    vectors = np.random.default_rng(0).normal(size=(case.network.n_params, 5))
    dispersion = case.likelihood.dispersion(case.n_outputs)
    kinds = {
        "Hessian": (Hessian, HessianLinearOperator, dispersion),
        "GGN": (GGN, GGNLinearOperator, dispersion),
        # Of a mean square its loss of an example is the sum, times 1 / (N C).
        "OPG": (OPG, EFLinearOperator, dispersion**2 * (case.n_outputs if squares else 1)),
    }
    for name, (ours, theirs, unit) in kinds.items():
        operator = theirs(network, loss, list(network.parameters()), batches)
        found = (operator @ torch.from_numpy(vectors[places])).detach().numpy()
        product = unit * ours(case.network, case.likelihood, case.data).matmat(vectors)
        yield Check(f"{name}: products", product[places], found)
