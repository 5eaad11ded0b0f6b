"""Networks of recipes, and their predictions by the Delta method, each computed once a process."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from deltauq import DeltaMethod, Prediction
from evidence.tasks import present, task
from evidence.training import Recipe

Array = np.ndarray[Any, Any]

#: Tasks by size: small networks, which two cores train in seconds, at a minimum of their cost.
TASKS: dict[str, tuple[Recipe, ...]] = {
    "tiny": (Recipe("iris", hidden=(4,), l2=1e-2),),
    "small": (
        Recipe("iris", hidden=(8,)),
        Recipe("wine", hidden=(8,)),
        Recipe("breast cancer", hidden=(8,)),
        Recipe("digits", hidden=(16,)),
        Recipe("german credit", hidden=(8,), l2=1e-2),
        Recipe("adult", n_train=2000, n_test=2000, hidden=(8,)),
        Recipe("mnist", n_train=1000, n_test=2000),
        Recipe("fashion", n_train=1000, n_test=2000),
    ),
}
TASKS["full"] = (
    *TASKS["small"][:3],
    Recipe("digits", hidden=(64, 32)),
    Recipe("german credit", hidden=(16,), l2=1e-2),
    Recipe("adult", n_train=20_000, n_test=16_281, hidden=(16,)),
    *(
        Recipe(name, n_train=10_000, n_test=10_000, epochs=epochs, hidden=(32,), activation="relu")
        for name in ("mnist", "fashion")
        for epochs in (20,)
    ),
    Recipe("mnist", n_train=4000, n_test=10_000),
    Recipe("fashion", n_train=4000, n_test=10_000),
)

#: Inputs of another kind, by the task on which a network was trained.
STRANGE = {"mnist": ("fashion", "notmnist"), "fashion": ("mnist", "notmnist")}


def recipes(size: str) -> list[Recipe]:
    """The recipes of a size whose data are there."""
    return [recipe for recipe in TASKS[size] if told(recipe)]


def told(recipe: Recipe) -> bool:
    """Whether the data of a recipe are there; where they are not, it is said."""
    there = present(recipe.data)
    if not there:
        print(f"  {recipe.data} is skipped: set DELTAUQ_DATA to the folder of its file")
    return there


def named(recipe: Recipe) -> str:
    """A recipe in a table."""
    return f"{recipe.data} ({'Adam' if recipe.epochs else 'minimum'}, N = {len(recipe.task.x):,})"


def strange(recipe: Recipe) -> dict[str, Array]:
    """Inputs of another kind than those of a task, by name; as many as its test inputs, at most."""
    names = [name for name in STRANGE.get(recipe.data, ()) if present(name)]
    return {name: task(name, 1, recipe.n_test).x_test for name in names}


@cache
def trained(recipe: Recipe) -> Any:
    """The network of a recipe, from seed 0."""
    return recipe.train(0)


def with_dropout(recipe: Recipe, size: str) -> Any:
    """The network of a recipe with dropout at a rate of 0.2, by Adam.

    For 20 epochs, or for 3,000 steps where these are more: after 20 epochs the networks of a few
    hundred rows have hardly begun to learn.
    """
    steps = -(-recipe.n_rows // 64)
    epochs = 1 if size == "tiny" else max(20, -(-3_000 // steps))
    return trained(replace(recipe, dropout=0.2, epochs=epochs))


@dataclass(frozen=True)
class Delta:
    """Predictions of a fit by the name of their inputs, "test" for those of the task.

    Attributes:
        predictions: by the name.
        seconds: of the processor, that the fit and the test inputs took.
        caveats: what they are about.
        kept: eigenpairs that the fit kept; None where nothing was left out.
    """

    predictions: dict[str, Prediction]
    seconds: float
    caveats: tuple[str, ...]
    kept: int | None


@cache
def delta(recipe: Recipe, curvature: str, rank: str = "auto", route: str = "auto") -> Delta:
    """Fit a curvature to the network of a recipe, and predict the test and the strange inputs."""
    model, data = trained(recipe), recipe.task
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dm = DeltaMethod(model, curvature, rank=rank, route=route, progress=False)
        dm.fit(data.x, data.y)
        predictions = {"test": dm.predict(data.x_test)}
    seconds = time.process_time() - started
    predictions |= {name: dm.predict(x) for name, x in strange(recipe).items()}
    caveats = tuple(each.subject for each in dm.caveats)
    kept = dm.eigenpairs.rank if dm.fitted_route in ("sketch", "lanczos") else None
    return Delta(predictions, seconds, caveats, kept)
