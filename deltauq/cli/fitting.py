"""`deltauq fit`: from training data, with a model or without one, to an artifact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltauq.cli import arguments as takes
from deltauq.cli.console import in_words, note, pairs_table, say
from deltauq.cli.encoding import encoded
from deltauq.cli.opening import Opened, l2_rate, open_model, whole_number_or_word
from deltauq.cli.output import check_output
from deltauq.cli.tables import Examples, names_in, read_examples
from deltauq.errors import InvalidInputError

if TYPE_CHECKING:
    from deltauq.delta.delta_method import DeltaMethod

__all__ = ["fit"]


@in_words
def fit(
    data: takes.Data,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The artifact to write, such as m.deltauq.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="A Keras model (.keras, .h5, a SavedModel's folder); without one a network is "
            "trained."
        ),
    ] = None,
    target: takes.Target = None,
    inputs: takes.Inputs = "x",
    weight_column: takes.WeightColumn = None,
    weights: takes.WeightsAre = "auto",
    ignore: takes.Ignore = None,
    classes: takes.Classes = None,
    likelihood: takes.LikelihoodName = "auto",
    calibration: takes.Calibration = None,
    curvature: Annotated[
        str, typer.Option(help="ggn (the Fisher information), opg (cheapest), hessian or sandwich.")
    ] = "ggn",
    rank: takes.RankOption = "auto",
    route: takes.RouteOption = "auto",
    l2: takes.L2Rate = "auto",
    hidden_units: Annotated[
        str, typer.Option(help="Of the network that is trained: widths of its hidden layers.")
    ] = "32",
    training_data: Annotated[
        bool,
        typer.Option(
            "--training-data",
            help="Put the training data themselves into the artifact, for anyone who has the file, "
            "in place of eigenvectors: exact predictions from a far smaller file. Needs --route "
            "gram.",
        ),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A directory for this fit alone: what takes long is kept there, and after an "
            "interruption the same command goes on from it. Needs --model."
        ),
    ] = None,
    seed: takes.Seed = 0,
    as_json: takes.AsJson = False,
    quiet: takes.Quiet = False,
) -> None:
    """Compute the curvature on training data, and write what predictions need to one file.

    With --model it is that model's. Without one, a dense network is trained on the table to a
    minimum of its cost: columns of text become columns of 0 and 1, all are scaled.

    Example: deltauq fit credit.csv --target risk --output credit.deltauq
    """
    from deltauq.delta.delta_method import DeltaMethod
    from deltauq.delta.settings import Settings

    check_output(output)
    _check_route(route, training_data=training_data)
    _check_checkpoint(checkpoint, model)
    chosen_rank = whole_number_or_word("--rank", rank, ("auto", "full"))
    given: Any = {"curvature": curvature, "rank": chosen_rank, "route": route, "seed": seed}
    given |= {"progress": not quiet}
    settings = Settings.among(given | {"weights": weights})  # checked before a network is trained
    if calibration is not None:
        settings.check_calibration()
    rate = l2_rate(l2)
    examples = read_examples(
        data, target=target, needs_target=True, inputs=inputs, weights=weight_column, ignore=ignore
    )
    read: Any = {"inputs": inputs, "others": (target, weight_column, *names_in(ignore))}
    facts: dict[str, Any] = {}
    if model is None:
        opened, x = _to_be_trained(examples)
        new = opened.calibration(calibration, x, **read)
        training: dict[str, Any] = {"hidden_units": _widths(hidden_units), "random_state": seed}
        training |= {"weights": weights} | ({"l2": rate} if isinstance(rate, float) else {})
        opened = _trained(opened, x, examples, likelihood, training, facts)
        options = opened.asked(l2=rate if rate == "tune" else "auto", weights=weights)
    else:
        opened = open_model(model).with_classes(classes, likelihood)
        x = opened.inputs(examples)
        new = opened.calibration(calibration, x, **read)
        asked = "auto" if classes else likelihood
        options = opened.asked(l2=rate, likelihood=asked, weights=weights)
    method = DeltaMethod(opened.model, **(options | given))
    labels, weight = opened.labels(examples), examples.weight
    method.fit(x, labels, weight, calibration=new, checkpoint=checkpoint)
    facts |= _facts(method)
    if new is not None:  # before the fit is saved, which keeps what this measures
        facts["standard_errors"] = method.predict(new).unmasked.measure_certainty()
    saved = method.save(output, training_data=training_data)
    facts |= {"artifact": str(saved.path), "megabytes": saved.bytes / 2**20}
    facts |= {"holds": saved.holds}
    say(facts, pairs_table("Fitted", facts), as_json=as_json)


def _check_route(route: str, *, training_data: bool) -> None:
    """Refuse to keep training data beside a route that has no rows, before anything is fitted."""
    if training_data and route != "gram":
        raise InvalidInputError(
            "--training-data is for a fit that is known from rows of the training data",
            expected="--route gram",
            received=f"--route {route}",
            remedy="say --route gram too; or leave --training-data out",
        )


def _check_checkpoint(checkpoint: Path | None, model: Path | None) -> None:
    """Refuse to go on with the fit of a network that is trained anew, which may be another one."""
    if checkpoint is not None and model is None:
        raise InvalidInputError(
            "--checkpoint is for the fit of a model that stays the same",
            expected="--model, the file of a trained model",
            received="no model, so that each command trains a network of its own",
            remedy="say --model too; or leave --checkpoint out",
        )


def _to_be_trained(examples: Examples) -> tuple[Opened, Any]:
    """What is known of a network for the examples before there is one, and its inputs."""
    import tensorflow as tf

    if not examples.is_table:
        return Opened(None, {}), examples.x
    x, text = encoded(examples.x)
    if text:
        note(f"columns of text, a column of 0 and 1 for each of their values: {', '.join(text)}")
    spec = tf.TensorSpec([None, x.shape[1]], "float64")
    return Opened(None, {}, columns=tuple(x.columns), spec=spec), x


def _trained(
    opened: Opened,
    x: Any,
    examples: Examples,
    likelihood: str,
    settings: dict[str, Any],
    facts: dict[str, Any],
) -> Opened:
    """Train a network for inputs, and the labels and weights of the examples they are of."""
    from deltauq.cli.training import train

    assert examples.y is not None
    trained = train(x, examples.y, examples.weight, likelihood=likelihood, settings=settings)
    facts["training"] = trained.verdict
    facts["training_r2" if trained.classes is None else "training_accuracy"] = trained.score
    options = {"likelihood": trained.likelihood}
    return replace(opened, model=trained.model, options=options, classes=trained.classes)


def _facts(method: DeltaMethod) -> dict[str, Any]:
    """What is printed of a fit: numbers of examples and parameters, rates, the minimum."""
    from deltauq.network.l2 import range_of

    rates = sorted(set(method.l2_rates.values()))
    opened_by = method.opened_by
    return {
        **({} if opened_by is None else {"opened_by": opened_by}),
        "examples": method.n_examples,
        "weights": method.weighting,
        "parameters": method.n_params,
        "outputs": method.n_outputs,
        "likelihood": repr(method.fitted_likelihood),
        "curvature": method.curvature,
        "exact": method.is_exact,
        "route": repr(method.fitted_route),
        "eigenpairs": method.n_params if method.is_exact else method.eigenpairs.rank,
        "l2": rates[0] if len(rates) == 1 else range_of(rates),
        "gradient_ratio": method.stationarity.ratio,
        "standard_errors_to_minimum": method.stationarity.shift,
        "caveats": [each.in_short for each in method.caveats],
        "seconds": method.fit_seconds,
    }


def _widths(text: str) -> tuple[int, ...]:
    """Widths of hidden layers from text such as '32,16'."""
    widths = [whole_number_or_word("--hidden-units", part, ()) for part in names_in(text)]
    return tuple(int(width) for width in widths)
