"""Random malformed arguments, through public calls and commands, end in words or right answers.

An error is the package's own, with what was expected; what is accepted agrees with the dense truth,
which shares no code with the package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import note
from malformed import ANYTHING, damaged, inputs_like
from many_seeds import try_seeds
from tiny_methods import N, X, Y, fit, fitted, network
from typer.testing import CliRunner

from deltauq import DeltaMethod, compare, diagnose, plots
from deltauq.cli import app
from deltauq.errors import DeltaUQError
from deltauq.evaluation import metrics
from deltauq.likelihoods import Binary, Categorical, CustomLoss, Gaussian
from deltauq.report import Study

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of what is malformed much may be said beside the error
]

L2, C = 0.1, 3


class Truth(NamedTuple):
    """Probabilities and their standard errors, `[n, C]` each."""

    mean: np.ndarray
    std: np.ndarray


@cache
def weights():
    kernel, bias = network().get_weights()
    return np.asarray(kernel, float), np.asarray(bias, float)


def softmax(x):
    kernel, bias = weights()
    z = x @ kernel + bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def covariance_of_parameters(x, y, factor, n_examples, curvature):
    """((1/N) sum_n f_n B_n + l2 I)^-1 / N with B_n of the GGN or the OPG, by loops."""
    total = L2 * np.eye(5 * C)
    for row, label, f, p in zip(x, y, factor, softmax(x), strict=True):
        jacobian = np.kron(np.append(row, 1.0), np.eye(C))  # of z = h W + b, b its last row
        if curvature == "ggn":
            middle = np.diag(p) - np.outer(p, p)
        else:
            middle = np.outer(p - label, p - label)
        total += f * jacobian.T @ middle @ jacobian / n_examples
    return np.linalg.inv(total) / n_examples


def truth(x, *, training=X, y=Y, factor=None, n_examples=N, curvature="ggn"):
    labels = np.eye(C)[y] if np.ndim(y) == 1 else np.asarray(y)
    factor = np.ones(len(training)) if factor is None else factor
    sigma = covariance_of_parameters(training, labels, factor, n_examples, curvature)
    mean, std = softmax(x), []
    for row, p in zip(x, mean, strict=True):
        jacobian = (np.diag(p) - np.outer(p, p)) @ np.kron(np.append(row, 1.0), np.eye(C))
        std.append(np.sqrt(np.diag(jacobian @ sigma @ jacobian.T)))
    return Truth(mean, np.array(std))


def check(found, expected, rtol=1e-6):
    np.testing.assert_allclose(found.mean, expected.mean, rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(found.std, expected.std, rtol=rtol, atol=1e-12)


class Case(NamedTuple):
    """A call with something malformed in it.

    Attributes:
        name: what is called with what.
        call: of the package.
        judge: asserts that what was returned is right; None where nothing would be.
    """

    name: str
    call: Callable[[], Any]
    judge: Callable[[Any], None] | None


def one_of(options, rng):
    """A key of a dict, and what it holds."""
    key = list(options)[rng.integers(len(options))]
    return key, options[key]


def is_finite(found):
    """Everything that is a number of a result is finite."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, (list, tuple)):
        for each in found:
            is_finite(each)
    elif isinstance(found, np.ndarray) and found.dtype.kind == "f":
        assert np.all(np.isfinite(found))


def anything(_):
    """Whatever it is: there is nothing to be wrong."""


def refused_by_findings(diagnosis):
    """A diagnosis never raises; of what cannot be used it says so."""
    assert any(f.level == "error" for f in diagnosis.findings) or diagnosis.routes


# Calls with inputs in forms that have a meaning or none.


def predicted(rng):
    name, x, meaning = inputs_like(X, rng)
    verb = str(rng.choice(["predict", "predict_joint", "predict_mean", "refine", "some"]))
    method = fitted()
    if verb == "some":
        call = partial(method.predict, x, "top3")
    else:
        call = partial(getattr(method, verb), x)

    def judge(found):
        expected = truth(meaning)
        if verb == "predict_joint":
            std = np.sqrt(np.einsum("ncnc->nc", found.covariance))
            check(Truth(found.probabilities, std), expected)
        elif verb == "predict_mean":
            np.testing.assert_allclose(found.mean[0], expected.mean.mean(axis=0), rtol=1e-9)
            assert np.all(found.std <= expected.std.mean(axis=0) * (1 + 1e-9))
        elif verb == "some":
            order = np.argsort(-expected.mean, axis=1, kind="stable")
            check(found, Truth(*(np.take_along_axis(part, order, 1) for part in expected)))
        else:
            check(found, expected)

    return Case(f"{verb}({name})", call, None if meaning is None else judge)


def labelled(rng):
    """Labels and weights in a form that has a meaning, or none."""
    some = rng.uniform(0.3, 2.0, N)
    counts = rng.integers(0, 3, N)
    counts[0] = 1
    forms = {
        "numbers": (Y, None),
        "floats": (Y.astype(float), None),
        "a column": (Y[:, None], None),
        "one-hot": (np.eye(C)[Y], None),
        "soft": (np.full((N, C), 1 / C), None),
        "text": (Y.astype(str), "refused"),
        "halves": (Y + 0.5, "refused"),
        "from 1": (Y + 1, "refused"),
        "negative": (Y - 1, "refused"),
        "huge": (Y * 2**40, "refused"),
        "NaN": (np.where(Y == 1, np.nan, Y), "refused"),
        "too few": (Y[:-1], "refused"),
        "two columns": (np.stack([Y, Y], axis=1), "refused"),
        "no distributions": (np.full((N, C), 0.5), "refused"),
        "complex": (Y + 0j, "refused"),
        "a series": (pd.Series(Y), None),
        "missing": (pd.Series(Y).where(Y > 0), "refused"),
    }
    factors = {
        "none": (None, np.ones(N), N),
        "counts": (counts, counts, counts.sum()),
        "importance": (some, some, N),
        "float32": (some.astype("float32"), some.astype("float32").astype(float), N),
        "negative": (-some, None, N),
        "zeros": (np.zeros(N), None, N),
        "NaN": (np.where(Y == 1, np.nan, some), None, N),
        "infinite": (np.where(Y == 1, np.inf, some), None, N),
        "too large": (np.full(N, 1e308), None, N),
        "too few": (some[1:], None, N),
        "text": (some.astype(str), None, N),
        "wide": (np.stack([some, some], axis=1), None, N),
    }
    name, weight = str(rng.choice(list(forms))), str(rng.choice(["none", *factors]))
    (y, fate), (given, factor, n) = forms[name], factors[weight]
    method = DeltaMethod(network(), "opg", l2=L2, rank="full", progress=False)
    right = fate is None and factor is not None
    meaning = np.asarray(y, float)
    meaning = meaning[:, 0] if meaning.shape == (N, 1) else meaning
    y_true = meaning if meaning.shape == (N, C) else meaning.astype(int)

    def judge(found):
        expected = truth(X, y=y_true, factor=factor, n_examples=n, curvature="opg")
        check(found.predict(X), expected)

    return Case(
        f"fit(y: {name}, weights: {weight})",
        partial(method.fit, X, y, given),
        judge if right else None,
    )


def trained_on(rng):
    name, x, meaning = inputs_like(X, rng)
    n, given_with = N if meaning is None else len(meaning), x
    y = Y[:n]
    if name == "a dataset with labels":  # which are zero
        meaning = given_with = np.concatenate([rows.numpy() for rows, _ in x])
        n, y = len(meaning), np.zeros(len(meaning), int)
    method = DeltaMethod(network(), "ggn", l2=L2, rank="full", progress=False)

    def judge(found):
        expected = truth(meaning, training=meaning, y=y, n_examples=n)
        check(found.predict(given_with), expected, rtol=1e-5)  # whole numbers stay whole

    dataset = "dataset" in name or "examples" in name
    without_labels = dataset and name != "a dataset with labels"
    return Case(
        f"fit(x: {name})",
        partial(method.fit, x, None if dataset else y),
        None if meaning is None or without_labels else judge,
    )


#: Of each setting a value that is right, as hardly any of `ANYTHING` is.
RIGHT = {
    "batch_size": 5,
    "bounds": False,
    "curvature": "opg",
    "l2": {"*": L2},
    "likelihood": "categorical",
    "memory_limit": "64GiB",
    "negative_curvature": "raise",
    "rank": 3,
    "rank_tol": 0.5,
    "route": "dense",
    "seed": np.int64(5),
    "tail": "l2",
    "weights": "counts",
}


def set_to(rng):
    """A method with one setting that may be anything, and is right now and then."""
    names = sorted(fitted().settings.as_arguments().keys())
    setting, (name, make) = str(rng.choice(names)), one_of(ANYTHING, rng)
    value = make()
    if setting in RIGHT and rng.random() < 0.2:
        value = RIGHT[setting]
        name = repr(value)
    options = {"curvature": "ggn", "l2": L2, "rank": "full", "progress": False} | {setting: value}

    def call():
        return DeltaMethod(network(), **options).fit(X, Y)

    def judge(found):
        prediction = found.predict(X)
        np.testing.assert_allclose(prediction.mean, softmax(X), rtol=1e-9)
        if setting in ("l2", "layers", "likelihood", "curvature"):
            return
        expected = truth(X).std
        low, high = prediction.std_bounds
        assert np.all((low <= expected * (1 + 1e-6)) & (expected <= high * (1 + 1e-6)))

    return Case(f"DeltaMethod({setting}={name})", call, judge)


# Other calls, in one argument of which there may be anything.


@cache
def known():
    """What the other calls are made with."""
    method = fitted()
    prediction = method.predict(X)
    groups = method.predict_mean(X, groups=np.array(list("abc") * 4))
    regression = fit(network(n_outputs=1), X, X[:, 0], likelihood="gaussian").predict(X)
    comparison = compare(
        network(), X, Y, X, Y, curvatures=("ggn", "opg"), l2=L2, rank="full", progress=False
    )
    return method, prediction, method.predict_joint(X[:3]), groups, regression, comparison


def check_interval(level, found):
    assert 0 < float(level) < 1
    lower, upper = found
    assert np.all((lower <= softmax(X)) & (softmax(X) <= upper))


SCORE, WRONG = np.linspace(0.0, 1.0, N), Y > 0


def calls(value):
    """Every call with a value in one of its arguments, and a judge of what it returns."""
    method, prediction, joint, groups, regression, comparison = known()
    right = partial(check_interval, value)
    return {
        "predict(classes)": (lambda: method.predict(X, value), is_finite),
        "predict_mean(groups)": (lambda: method.predict_mean(X, value).std, is_finite),
        "predict_mean(weights)": (lambda: method.predict_mean(X, weights=value).std, is_finite),
        "refine(rtol)": (lambda: fitted(rank=3).refine(X[:2], value).std, is_finite),
        "interval(level)": (lambda: prediction.interval(value), right),
        "interval(method)": (lambda: prediction.interval(0.9, value), is_finite),
        "to_dict(level)": (lambda: prediction.to_dict(value), is_finite),
        "std_range(level)": (lambda: prediction.std_range(value), anything),
        "events(y)": (lambda: prediction.events(value), anything),
        "is_wrong(y)": (lambda: prediction.is_wrong(value), None),
        "checked_truth(y)": (lambda: regression.checked_truth(value), is_finite),
        "joint.mean(weights)": (lambda: joint.mean(value).std, is_finite),
        "contrast(coefficients)": (lambda: groups.contrast(value).std, is_finite),
        "contrast(names)": (lambda: groups.contrast(np.ones((1, 3)), value), anything),
        "difference(first)": (lambda: groups.difference(value, "b"), lambda _: value == "a"),
        "load(path)": (lambda: DeltaMethod.load(value), None),
        "load(model)": (lambda: DeltaMethod.load(artifact(), value), anything),
        "save(with_model)": (lambda: method.save(beside("a"), with_model=value), anything),
        "save(vectors_dtype)": (lambda: method.save(beside("a"), vectors_dtype=value), anything),
        "export(level)": (lambda: method.export(beside("no/x"), level=value), None),
        "attach(x)": (lambda: method.attach(value, Y), None),
        "attach(y)": (lambda: method.attach(X, value), None),
        "tune_l2(x)": (lambda: method.tune_l2(value, Y) if value is not None else 1, anything),
        "compare(curvatures)": (lambda: compare(network(), X, Y, X, curvatures=value), None),
        "agreement(curvature)": (lambda: comparison.agreement(value), anything),
        "diagnose(model)": (lambda: diagnose(value, X, Y), refused_by_findings),
        "diagnose(y)": (lambda: diagnose(network(), X, value, l2=L2), refused_by_findings),
        "diagnose(l2)": (lambda: diagnose(network(), X, Y, l2=value), refused_by_findings),
        "Study.of(x)": (lambda: Study.of(method, value), None),
        "Study.of(y)": (lambda: Study.of(method, X, value), anything),
        "Study.of(class_names)": (lambda: Study.of(method, X, class_names=value), anything),
        "Study.of(diagnosis)": (lambda: Study.of(method, X, diagnosis=value), anything),
        "Categorical(classes)": (lambda: Categorical(classes=value), anything),
        "Categorical(smoothing)": (lambda: Categorical(label_smoothing=value), anything),
        "Binary(classes)": (lambda: Binary(classes=value), anything),
        "Gaussian(noise)": (lambda: Gaussian(value).noise, is_finite),
        "CustomLoss(function)": (lambda: CustomLoss(value), anything),
        "error_auroc(score)": (lambda: metrics.error_auroc(value, WRONG), is_finite),
        "error_auroc(wrong)": (lambda: metrics.error_auroc(SCORE, value), is_finite),
        "risk_coverage(wrong)": (lambda: metrics.risk_coverage(SCORE, value).risk, is_finite),
        "reliability(probability)": (lambda: metrics.reliability(value, WRONG), is_finite),
        "reliability(n_bins)": (lambda: metrics.reliability(SCORE, WRONG, value), is_finite),
        "plots.class_bars(index)": (lambda: plots.class_bars(prediction, value), anything),
        "plots.spectrum": (lambda: plots.spectrum(value), None),
        "plots.reliability": (lambda: plots.reliability(value, Y), None),
        "plots.regression_band": (lambda: plots.regression_band(regression, value), anything),
        "plots.decision_regions": (lambda: plots.decision_regions(value, X[:, :2]), None),
    }


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Where files are written that a case needs."""
    made = tmp_path_factory.mktemp("malformed")
    before = os.getcwd()
    os.chdir(made)
    yield made
    os.chdir(before)


def beside(name):
    return os.path.join(os.getcwd(), name)


@cache
def artifact():
    """A path, of the first folder that is asked for."""
    path = beside("whole.deltauq")
    fitted().save(path)
    return path


def called(rng):
    argument, make = one_of(ANYTHING, rng)
    name, (call, judge) = one_of(calls(make()), rng)
    return Case(f"{name} = {argument}", call, judge)


def loaded(rng):
    """An artifact that something has happened to."""
    with open(artifact(), "rb") as file:
        whole = file.read()
    content = damaged(whole, rng)
    with open(beside("damaged.deltauq"), "wb") as file:
        file.write(content)
    judge = None if content != whole else lambda found: check(found.predict(X), truth(X))
    return Case("load(damaged)", partial(DeltaMethod.load, beside("damaged.deltauq")), judge)


# Commands, with files and options that may be anything.

FILES = {
    "data.npz": lambda: np.savez("data.npz", x=X, y=Y),
    "table.csv": lambda: (
        pd.DataFrame(X, columns=list("abcd")).assign(kind=Y).to_csv("table.csv", index=False)
    ),
    "model.keras": lambda: network(l2=L2).save("model.keras"),
    "whole.deltauq": artifact,
}
TEXTS = ["", "-1", "0", "1", "nan", "inf", "1e400", "abc", "a,b", ",", "[", "auto", "9" * 30, "ü"]

COMMANDS = {
    "predict whole.deltauq data.npz --json": ["--inputs", "--target", "--level", "--output"],
    "predict whole.deltauq table.csv --ignore kind --json": ["--ignore", "--target", "--level"],
    "diagnose model.keras data.npz": ["--l2", "--likelihood", "--classes", "--inputs"],
    "fit data.npz --model model.keras --output out.deltauq": [
        "--rank",
        "--route",
        "--seed",
        "--l2",
    ],
    "report whole.deltauq data.npz --output out.html": ["--title", "--inputs", "--output"],
}


def commanded(rng):
    """A command of which a file is damaged, or an option is anything."""
    command, options = one_of(COMMANDS, rng)
    for name, make in FILES.items():
        if name in command and not os.path.exists(name):
            make()
    words = [*command.split(), "--quiet"]
    places = [k for k, word in enumerate(words) if word in FILES]
    if rng.random() < 0.5:
        place = places[rng.integers(len(places))]
        with open(words[place], "rb") as file:
            whole = file.read()
        content = damaged(whole, rng)
        name = f"damaged-{words[place]}"
        with open(name, "wb") as file:
            file.write(content)
        words[place] = name
        is_whole = content == whole
    else:
        words += [options[rng.integers(len(options))], TEXTS[rng.integers(len(TEXTS))]]
        is_whole = False

    def judge(result):
        refuse_traceback(result)
        if result.exit_code == 0 and words[0] == "predict" and (is_whole or "--level" in words):
            rows = json.loads(result.stdout)
            np.testing.assert_allclose([row["se"] for row in rows], most_probable(), rtol=1e-4)

    return Case(" ".join(words), lambda: CliRunner().invoke(app, words), judge)


def most_probable():
    """Standard errors of the predicted classes."""
    expected = truth(X)
    chosen = np.argmax(expected.mean, axis=1)
    return expected.std[np.arange(N), chosen]


def refuse_traceback(result):
    """Every command ends in words, and with the exit code that they have."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    assert result.exit_code in (0, 1, 2, 3), result.output
    assert result.exit_code == 0 or result.output.strip()


#: What is malformed, and how many of a hundred cases are of that kind: fits and commands take long.
KINDS = {
    called: 40,
    predicted: 22,
    loaded: 8,
    commanded: 10,
    labelled: 7,
    trained_on: 6,
    set_to: 7,
}


def random_case(seed):
    rng = np.random.default_rng(seed)
    kinds, shares = list(KINDS), np.array(list(KINDS.values())) / sum(KINDS.values())
    return kinds[rng.choice(len(kinds), p=shares)](rng)


def outcome(case):
    """What a call returns, and the package's own error; any other one is raised."""
    try:
        return case.call(), None
    except DeltaUQError as error:
        return None, error


def run(examples):
    ends = []

    def examine(seed):
        case = random_case(seed)
        note(case.name)
        found, error = outcome(case)
        if error is not None:
            ends.append("refused")
            assert error.expected or error.remedy, f"says neither what nor what to do: {error}"
            return
        ends.append("accepted")
        assert case.judge is not None, f"{case.name} was accepted, and means nothing"
        assert case.judge(found) is not False

    try_seeds(examples, examine)
    assert len(ends) >= examples
    assert {"refused", "accepted"} <= set(ends)


def test_fifty_malformed_arguments_end_in_words_or_right_answers(folder):
    run(50)


@pytest.mark.slow
def test_five_hundred_malformed_arguments_end_in_words_or_right_answers(folder):
    run(500)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_right_is_accepted_and_judged(kind, folder):
    """Each kind of case is now and then no mistake at all: what judges it is tested by that."""
    for seed in range(100):
        case = kind(np.random.default_rng(seed))
        if case.judge in (None, anything):
            continue
        found, error = outcome(case)
        if error is not None:
            continue
        assert case.judge(found) is not False
        return
    pytest.fail("nothing was accepted")


def test_the_truth_is_that_of_a_fit_of_the_plain_arrays(folder):
    check(fitted().predict(X), truth(X))
    wrong = truth(X, factor=np.full(N, 1.1))
    with pytest.raises(AssertionError):
        check(fitted().predict(X), wrong)
