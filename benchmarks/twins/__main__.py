"""Made-up twins of published models, each through diagnose, fit, predict and report.

`python benchmarks/twins` trains them all and prints what happened to each, in about ten minutes;
words beside it choose those whose names hold one of them. A refusal is followed by the way out that
it names, and so is the next one. Standard errors stand beside those of a dense reference in float64
(`tests/helpers/eager.py`, which shares no code with the package) where a twin has one; where they
disagree, or an error is not one of ours, the table says "WRONG" or "BROKE", and the script fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))

import agreement
import images  # noqa: F401 - registers its twins, and so do the next ones
import keras
import numpy as np
import series  # noqa: F401
import tabular  # noqa: F401
import tensorflow as tf
import text  # noqa: F401
from eager import poisson_loss, squares
from twin import TWINS, Twin, option

import deltauq
from deltauq.errors import DeltaUQError
from deltauq.report import Study


def rate_of_opg(twin: Twin) -> Twin:
    """The L2 rate that marginal likelihood chooses for the OPG, where a sandwich has none."""
    dm = fit(option(curvature="opg", l2="tune", meat="opg")(twin))
    return option(l2=next(iter(dm.l2_rates.values())))(twin)


#: Ways out that many refusals name: the words that name them -> how they are taken.
WAYS: dict[str, Callable[[Twin], Twin]] = {
    "l2='tune'": option(l2="tune"),
    "pass as l2=... the one that tune_l2() of the other finds": rate_of_opg,
    "or give every variable an L2 rate, or": rate_of_opg,
}

#: What float32 may cost a standard error, relative to the largest of them.
TOLERANCE = 0.01

#: More parameters than this have no dense truth in a reasonable time.
DENSE = 2_000

#: Refusals that are followed, one after the other.
ENOUGH = 4

OUTCOMES = agreement.OUTCOMES | {
    "counts": agreement.Outcome(1, poisson_loss, np.exp, lambda rng, n: rng.poisson(1, n)),
}


@dataclass(frozen=True)
class InInference:
    """A model without what it draws in training, and a function of its output.

    Keras augments images where nothing says that it is not to.
    """

    model: Any
    end: Callable[..., Any]

    @property
    def trainable_variables(self) -> Any:
        """The model's."""
        return self.model.trainable_variables

    def __call__(self, x: Any) -> Any:
        """The function of the output."""
        return self.end(self.model(x, training=False))


@dataclass
class Story:
    """What happened to one twin.

    Attributes:
        steps: of "diagnose", "fit", "predict", "report": what each said, in the order of time.
        failed: a traceback that is not ours, a way out that is not one, or numbers that are wrong.
        figures: of the standard errors.
        seconds: of diagnose, fit, predict and report, ways out included.
    """

    steps: list[tuple[str, str]] = field(default_factory=list)
    failed: bool = False
    figures: str = ""
    seconds: float = 0.0

    def tell(self, step: str, what: str, *, failed: bool = False) -> None:
        """Add what a step said, in a line."""
        self.steps.append((step, " ".join(what.split())))
        self.failed |= failed


def attempt(story: Story, step: str, action: Callable[[], Any]) -> Any:
    """The result of an action whose warnings are told; None where it is refused or breaks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = action()
        except DeltaUQError as error:
            story.tell(step, f"refused: {error}")
            return error
        except Exception:
            story.tell(step, f"BROKE: {traceback.format_exc(limit=-3)}", failed=True)
            return None
    texts = dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught)
    for text_ in texts:
        story.tell(step, f"warned: {text_}")
    if not texts:
        story.tell(step, "fine")
    return result


def diagnosed(story: Story, twin: Twin) -> Any:
    """`diagnose` as its owner calls it, with what it says beyond "ok" and "note"."""
    known = ("l2", "likelihood", "layers", "weights")
    options = {name: twin.options[name] for name in known if name in twin.options}
    arguments = {**twin.data, **options}
    found = attempt(
        story, "diagnose", lambda: deltauq.diagnose(twin.model, twin.x, twin.y, **arguments)
    )
    for finding in getattr(found, "findings", ()):
        if finding.level in ("warning", "error"):
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            said = f"{finding.level}: {finding.subject}: {finding.what} {finding.why}{remedy}"
            story.tell("diagnose", said)
    return found


def fit(twin: Twin) -> Any:
    """A fit as its owner calls it."""
    options = {"curvature": "ggn", "progress": False, **twin.options}
    return deltauq.DeltaMethod(twin.model, **options).fit(twin.x, twin.y, **twin.data)


def fitted(story: Story, twin: Twin) -> tuple[Twin, Any]:
    """A fit, by the ways out that refusals name; None where there is none."""
    for _ in range(ENOUGH):
        method = attempt(story, "fit", partial(fit, twin))
        if not isinstance(method, DeltaUQError):
            return twin, method
        known = {**WAYS, **twin.ways}  # the last that is named: its own before the others
        words = next((words for words in reversed(known) if words in str(method)), None)
        if words is None:
            story.tell("fit", "NO WAY OUT that was found in the text", failed=True)
            return twin, None
        story.tell("fit", f"way out taken: {words}")
        twin = known[words](twin)
    story.tell("fit", "NO WAY OUT: one refusal after the other", failed=True)
    return twin, None


def rates_of(dm: Any) -> Any:
    """The L2 rate of every parameter, beside the cost that Keras minimised."""
    sizes = [int(np.prod(v.shape)) for v in dm.model.trainable_variables]
    return np.repeat(list(dm.l2_rates.values()), sizes)


def truth_of(twin: Twin, dm: Any) -> Any:
    """Standard errors `[N, M]` by the dense reference; None where there is none."""
    if twin.build is None or twin.outcome is None or dm.eigenpairs.n_params > DENSE:
        return None
    outcome = OUTCOMES[twin.outcome]
    y = np.asarray(twin.y)
    if twin.outcome in ("softmax", "logits") and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if twin.outcome == "regression":
        noise = float(np.mean(dm.fitted_likelihood.noise))
        outcome = replace(outcome, loss=squares(noise), rate_factor=1 / (2 * noise))
    if twin.outcome == "labels":
        outcome = replace(outcome, rate_factor=dm.n_outputs)
    with agreement.precision("float64"):
        wide = twin.build()
    wide.set_weights(dm.model.get_weights())
    weight = np.asarray(twin.data.get("sample_weight", np.ones(len(y))), "float64")
    end = tf.math.log if twin.outcome == "counts" else tf.identity
    wide = InInference(wide, end)
    matter = agreement.Matter(
        wide,
        tf.nest.map_structure(np.asarray, twin.x),
        y,
        weight,
        outcome,
        rates=rates_of(dm),
        twin=wide,
        weights="counts" if np.all(weight == 1) else "importance",
        class_weight=twin.data.get("class_weight"),
    )
    covariance = {"ggn": "ggn", "opg": "opg"}[dm.curvature]
    found = matter.truth.covariance_from(getattr(matter.truth, covariance))
    return np.sqrt(np.diagonal(found, axis1=1, axis2=2))


def compared(story: Story, twin: Twin, dm: Any, prediction: Any) -> None:
    """Say how far the standard errors are from the dense ones."""
    std = prediction.std
    story.figures = f"{np.nanmin(std):.2g} to {np.nanmax(std):.2g}"
    truth = truth_of(twin, dm)
    if truth is None:
        return
    keep = np.isfinite(std)
    gap = np.max(np.abs(std - truth)[keep]) / np.max(truth[keep])
    low, high = (bound[keep] for bound in prediction.std_bounds)
    room = TOLERANCE * np.max(truth[keep])
    outside = np.mean((truth[keep] < low - room) | (truth[keep] > high + room))
    exact = dm.eigenpairs.rank == dm.eigenpairs.n_params
    wrong = outside > 0 or (exact and not gap <= TOLERANCE)
    verdict = "WRONG" if wrong else "right"
    story.tell("truth", f"{verdict}: gap {gap:.1e} of the largest, {outside:.0%} outside bounds")
    story.failed |= bool(wrong)


def told(make: Callable[[], Twin]) -> Story:
    """Train a twin, and take it through all the steps."""
    story = Story()
    try:
        twin = make()
    except Exception:
        story.tell("training", f"BROKE: {traceback.format_exc(limit=-3)}", failed=True)
        return story
    started = time.perf_counter()
    diagnosis = diagnosed(story, twin)
    final, dm = fitted(story, twin)
    if dm is not None:
        if final.model is not twin.model:
            diagnosis = diagnosed(story, final)
        prediction = attempt(story, "predict", lambda: dm.predict(final.x))
        if isinstance(prediction, DeltaUQError) or prediction is None:
            story.failed = True
        else:
            attempt(
                story,
                "report",
                lambda: Study.of(dm, final.x, final.y, diagnosis=diagnosis).to_html(),
            )
            story.seconds = time.perf_counter() - started
            compared(story, final, dm, prediction)
    return story


def outcome_of(story: Story, step: str) -> str:
    """One cell of the table: the word for what a step said."""
    said = [text_ for name, text_ in story.steps if name == step]
    words = dict.fromkeys(text_.partition(":")[0] for text_ in said)
    return ", ".join(words) or "-"


def main() -> None:
    """The stories, and a table of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    words = [word.lower() for word in parser.parse_args().words]
    chosen = {
        name: make
        for name, make in TWINS.items()
        if not words or any(word in name.lower() for word in words)
    }
    stories = {}
    for number, (name, make) in enumerate(chosen.items(), 1):
        started = time.perf_counter()
        stories[name] = story = told(make)
        seconds = time.perf_counter() - started
        print(f"\n{number}. {name} ({seconds:.0f} s, of which {story.seconds:.0f} ours)")
        for step, what in story.steps:
            print(f"   {step:8} {what}", flush=True)
        keras.backend.clear_session()
    steps = ("diagnose", "fit", "predict", "report", "truth")
    print("\n| model | " + " | ".join(steps) + " | std | s |")
    print("|---" * (len(steps) + 3) + "|")
    for name, story in stories.items():
        cells = [outcome_of(story, step) for step in steps]
        print(f"| {name} | {' | '.join(cells)} | {story.figures} | {story.seconds:.0f} |")
    failed = [name for name, story in stories.items() if story.failed]
    print(f"\n{len(stories)} twins, {len(failed)} failed: {failed}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
