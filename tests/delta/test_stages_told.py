"""The stages of a fit are planned once its route is known, gone through, and told of."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from tiny_methods import network

from deltauq import DeltaMethod
from deltauq.curvature import training_rows
from deltauq.curvature.operator import CurvatureOperator
from deltauq.runtime import stages as module
from deltauq.runtime.checkpoint import Checkpoint
from deltauq.runtime.stages import Stages

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:The L2 rate is"),
    pytest.mark.filterwarnings("ignore:rank='auto' stopped"),
]

RNG = np.random.default_rng(0)
N = 120
X, Y = RNG.normal(size=(N, 4)), RNG.integers(0, 3, N)

LOOKING, BOUNDING = "looking for eigenvectors of the", "bounding what is left of the"
FORMING, APART = "forming the matrix of the", "taking the matrix apart"
ENDS = "a step to the minimum"

#: Options of a fit by every route, and the stages that it goes through after the cost.
ROUTES = {
    "sketch": ({"curvature": "opg", "rank": 5}, [f"{LOOKING} OPG", f"{BOUNDING} OPG"]),
    "without bounds": ({"rank": 5, "bounds": False}, [f"{LOOKING} GGN"]),
    "grown": (
        {"rank": "auto", "route": "sketch", "l2": "tune"},
        [f"{LOOKING} GGN", f"{BOUNDING} GGN", "the search for the L2 rate"],
    ),
    "gram": ({"route": "gram"}, ["forming rows", "inner products of rows in float64"]),
    "gram in float32": (
        {"route": "gram", "dtype": "float32"},
        ["forming rows", "inner products of rows in float32", "factoring the matrix"],
    ),
    "dense": ({"curvature": "opg", "route": "dense"}, [f"{FORMING} OPG", APART]),
    "lanczos": (
        {"curvature": "hessian", "rank": 4},
        ["forming activations", f"{LOOKING} Hessian", f"{BOUNDING} Hessian"],
    ),
    "dense Hessian": (
        {"curvature": "hessian", "rank": "full"},
        ["forming activations", f"{FORMING} Hessian", APART],
    ),
    "sandwich": (
        {"curvature": "sandwich", "rank": 4},
        [
            "forming activations",
            f"{LOOKING} Hessian",
            f"{BOUNDING} Hessian",
            f"{LOOKING} SandwichMeat",
            f"{BOUNDING} SandwichMeat",
        ],
    ),
}


#: Seconds that a fit takes for each that its plan counts.
SLOWER = 1e3


class Told(list):
    """Reports of all stages, with a clock that goes as the plan says, but slower.

    A report is the name of the stage, its share, the time, how long is left, and the place.
    """

    seconds = 0.0

    def monotonic(self):
        return self.seconds

    def names(self):
        return list(dict.fromkeys(name for name, *_ in self))


@pytest.fixture
def told(monkeypatch):
    found, leave, advance = Told(), Stages._leave, Stages.advance
    monkeypatch.setattr(module, "time", found)

    def noted(stages):
        if stages.now is not None:
            left = stages.left
            found.append((stages.now.name, stages.share, found.seconds, left, stages.place))

    def leaving(stages):
        if stages.now is not None and stages.now.parts is None:
            found.seconds += SLOWER * stages.now.seconds
        noted(stages)
        leave(stages)

    def advancing(stages, parts):
        if stages.now is not None and stages.now.parts:
            found.seconds += SLOWER * stages.now.seconds * parts / stages.now.parts
        advance(stages, parts)
        noted(stages)

    monkeypatch.setattr(Stages, "_leave", leaving)
    monkeypatch.setattr(Stages, "advance", advancing)
    return found


def fit(checkpoint=None, dtype="float64", curvature="ggn", **options):
    keras.utils.set_random_seed(0)
    model = network(keras.layers.Dense(6, "tanh", dtype=dtype), dtype=dtype)
    options = {"l2": 0.1, "likelihood": "categorical", "seed": 1, "batch_size": 10} | options
    method = DeltaMethod(model, curvature, progress=False, **options)
    return method.fit(X.astype(dtype), Y, checkpoint=checkpoint)


@pytest.mark.parametrize("name", ROUTES)
def test_every_route_names_its_stages_and_plans_them(name, told, monkeypatch):
    planned, plan = [], Stages.plan

    def planning(stages, found):
        planned.extend(found)
        plan(stages, found)

    monkeypatch.setattr(Stages, "plan", planning)
    options, names = ROUTES[name]
    fit(**options)
    assert told.names() == ["the cost", *names, ENDS]
    assert all(stage.why and stage.seconds >= 0 for stage in planned)
    unplanned = set(told.names()) - {stage.name for stage in planned}
    assert unplanned <= {"the cost", "forming activations"}
    # Those that are no bounds were done to the end, but for the rows that were held out.
    for stage in planned:
        shares = [share for name, share, *_ in told if name == stage.name]
        if stage.parts and not stage.at_most:
            assert shares[-1] >= 1 - 6 / N
        assert all(share is None or share <= 1.0 for share in shares)


@pytest.mark.parametrize("name", ["sketch", "grown", "gram", "dense", "lanczos", "sandwich"])
def test_the_time_that_is_told_is_that_which_it_takes_or_more(name, told):
    """By a clock that goes as the plan counts: what is a bound is said to be one."""
    fit(**ROUTES[name][0])
    end = told.seconds
    seen = [(at + left.seconds, left.at_most) for _, _, at, left, _ in told if left is not None]
    assert len(seen) > 5
    for expected, at_most in seen:
        assert expected >= 0.95 * end
        if not at_most:
            assert expected <= 1.05 * end
    assert any(at_most for _, at_most in seen) == (name not in ("gram", "dense"))


def test_rows_that_are_formed_again_belong_to_the_stage_that_needs_them(told, monkeypatch):
    """Where they do not fit at once: solving with them is no stage of forming rows."""
    layout = training_rows.row_layout
    monkeypatch.setattr(
        training_rows,
        "row_layout",
        lambda factors, n, itemsize, room: layout(factors, n, itemsize, 3 * 2 * n * itemsize),
    )
    fit(**ROUTES["gram in float32"][0])
    by_turns = ["forming rows", "inner products of rows in float32"]
    order = [told[0][0]]
    order += [b for (a, *_), (b, *_) in itertools.pairwise(told) if a != b]
    assert order == ["the cost", *by_turns * 3, "factoring the matrix", ENDS]
    assert told[-1][4] == "9 of 9"


def test_the_last_stage_ends_with_all_done(monkeypatch):
    ended, end = [], Stages.end

    def ending(stages):
        end(stages)
        ended.append((stages.share, stages.to_come, stages.left))

    monkeypatch.setattr(Stages, "end", ending)
    fit(rank=5)
    assert ended == [(1.0, [], None)]


def test_after_an_interruption_what_is_known_is_told_as_done(told, tmp_path, monkeypatch):
    """It takes no time, and estimates go by what is computed."""
    monkeypatch.setattr(Checkpoint, "interval", 0.0)
    matmat, products = CurvatureOperator.matmat, []

    def interrupted(operator, *arguments, **options):
        products.append(operator)
        if len(products) == 7:
            raise KeyError
        return matmat(operator, *arguments, **options)

    options = {"curvature": "hessian", "rank": 4}
    monkeypatch.setattr(CurvatureOperator, "matmat", interrupted)
    with pytest.raises(KeyError):
        fit(tmp_path, **options)
    monkeypatch.setattr(CurvatureOperator, "matmat", matmat)
    told.clear()
    told.seconds = 0.0
    fit(tmp_path, **options)
    assert told.names()[0] == "the checkpoint"
    looking = [report for report in told if report[0] == f"{LOOKING} Hessian"]
    assert looking[0][1] > 6 * (looking[2][1] - looking[1][1])  # the first one that is computed
    end = told.seconds
    assert all(at + left.seconds >= 0.95 * end for _, _, at, left, _ in looking if left)
