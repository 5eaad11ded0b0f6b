"""Averaged probabilities: how near each method comes, and laplace-torch's on the same weights.

`python benchmarks/predictive.py` (two minutes) prints tables. One has the gaps of the plain
probabilities, the probit formula and the Laplace bridge to Monte Carlo with 50,000 pairs of draws,
for softmaxes without and with a hidden layer on data of scikit-learn, at several L2 rates: the
looser the weights are determined, the more there is to average over. The other one, where
laplace-torch is installed (`make bench` does that), holds the averages of both libraries against
each other on identical weights, with a prior of precision N lambda. The script fails where Monte
Carlo is not precise enough to judge, or the two libraries' probit differs by more than 1e-4.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import before_tensorflow  # noqa: F401
import keras
import numpy as np
import sklearn.datasets
from rich.console import Console
from rich.table import Table

from deltauq import DeltaMethod

layers = keras.layers

DATA = {
    "iris": sklearn.datasets.load_iris,
    "wine": sklearn.datasets.load_wine,
    "digits": sklearn.datasets.load_digits,
}
#: L2 rates, hidden tanh units (none: a softmax regression), and the most examples and new inputs.
RATES, HIDDEN, N_TRAIN, N_NEW = (1e-1, 1e-2, 1e-3), (0, 8), 300, 30

#: Pairs of draws (100,000 draws in all) that stand for the truth, and the most its error may be.
DRAWS, MOST_ERROR = 50_000, 2e-3

#: What probit may differ by between the libraries.
MOST_APART = 1e-4


class Fit(NamedTuple):
    """A fit, and what it was made of."""

    name: str
    model: Any
    x: Any
    y: Any
    l2: float
    x_new: Any
    prediction: Any
    truth: Any


def trained(name: str, hidden: int, l2: float) -> Fit:
    """A network at a minimum of its cost, in float64, and its predictions for other inputs."""
    x, y = DATA[name](return_X_y=True)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-3)
    order = np.random.default_rng(0).permutation(len(x))
    cut = min(N_TRAIN, 2 * len(x) // 3)
    train, new = order[:cut], order[cut:][:N_NEW]
    keras.utils.set_random_seed(0)
    rate = keras.regularizers.L2(l2 / 2)
    options = {"kernel_regularizer": rate, "bias_regularizer": rate}
    middle = [layers.Dense(hidden, "tanh", **options)] if hidden else []
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            *middle,
            layers.Dense(int(y.max()) + 1, **options),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    model.fit(x[train], y[train], epochs=150, batch_size=cut, verbose=0)
    fit = DeltaMethod(model, "ggn", rank="full", l2=l2, progress=False).fit(x[train], y[train])
    which = f"{name}, {hidden} tanh units" if hidden else f"{name}, no hidden layer"
    prediction = fit.predict(x[new])
    truth = prediction.predictive("monte_carlo", samples=DRAWS)
    return Fit(which, model, x[train], y[train], l2, x[new], prediction, truth)


def gaps(fit: Fit) -> list[float]:
    """Mean and largest gap of each way to Monte Carlo, over inputs and classes."""
    usual = fit.prediction.predictive("monte_carlo").probabilities
    found = []
    for p in (
        fit.prediction.probabilities,
        fit.prediction.predictive("probit").probabilities,
        fit.prediction.predictive("bridge").probabilities,
        usual,
    ):
        apart = np.abs(p - fit.truth.probabilities)
        found += [float(apart.mean()), float(apart.max())]
    return found


def of_laplace_torch(fit: Fit) -> dict[str, Any]:
    """Averages by laplace-torch on the same weights, by the names of our methods."""
    import laplace
    import torch

    torch.set_default_dtype(torch.float64)
    weights = fit.model.get_weights()
    parts: list[Any] = []
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        layer = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias))
        parts += [layer, torch.nn.Tanh()]
    examples = torch.utils.data.TensorDataset(torch.from_numpy(fit.x), torch.from_numpy(fit.y))
    approximation = laplace.Laplace(
        torch.nn.Sequential(*parts[:-1]),
        "classification",
        subset_of_weights="all",
        hessian_structure="full",
        prior_precision=len(fit.x) * fit.l2,
    )
    approximation.fit(torch.utils.data.DataLoader(examples, batch_size=len(fit.x)))
    x_new = torch.from_numpy(fit.x_new)
    asked = {"probit": "probit", "bridge": "bridge", "bridge, corrected": "bridge_norm"}
    return {
        ours: approximation(x_new, link_approx=theirs).detach().numpy()
        for ours, theirs in asked.items()
    }


def main() -> int:
    keras.config.set_floatx("float64")
    warnings.filterwarnings("ignore")  # such as rates that leave weights far from a minimum
    console = Console(width=150)
    fits = [trained(name, hidden, l2) for name in DATA for hidden in HIDDEN for l2 in RATES]
    table = Table(title="Gap to Monte Carlo, mean and largest over inputs and classes")
    ways = ("plain", "probit", "bridge", "monte_carlo, 1,000")
    for column in ("network", "L2 rate", "median std of logits", *ways):
        table.add_column(column, justify="left" if column == "network" else "right")
    failed = False
    for fit in fits:
        found = gaps(fit)
        failed |= not fit.truth.sampling_error.max() <= MOST_ERROR
        pairs = zip(found[::2], found[1::2], strict=True)
        spread = float(np.median(fit.prediction.logit_std))
        cells = (f"{mean:.4f}  {largest:.3f}" for mean, largest in pairs)
        table.add_row(fit.name, f"{fit.l2:g}", f"{spread:.2f}", *cells)
    console.print(table)
    if importlib.util.find_spec("laplace") is None:
        console.print("laplace-torch is not installed: `make bench` installs it")
        return int(failed)
    table = Table(title="Largest difference to laplace-torch on identical weights")
    for column in ("network", "L2 rate", "probit", "bridge"):
        table.add_column(column, justify="left" if column == "network" else "right")
    truths = Table(title="laplace-torch's bridges: mean gap to our Monte Carlo")
    for column in ("network", "L2 rate", "bridge", "bridge_norm"):
        truths.add_column(column, justify="left" if column == "network" else "right")
    for fit in fits:
        theirs = of_laplace_torch(fit)
        apart = [
            float(np.abs(fit.prediction.predictive(method).probabilities - theirs[method]).max())
            for method in ("probit", "bridge")
        ]
        failed |= not apart[0] <= MOST_APART
        table.add_row(fit.name, f"{fit.l2:g}", *(f"{value:.1e}" for value in apart))
        truth = fit.truth.probabilities
        far = (np.abs(theirs[name] - truth).mean() for name in ("bridge", "bridge, corrected"))
        truths.add_row(fit.name, f"{fit.l2:g}", *(f"{value:.4f}" for value in far))
    console.print(table)
    console.print(truths)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
