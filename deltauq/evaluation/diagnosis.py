"""`diagnose`: everything that would make the numbers wrong, before they are computed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from deltauq.curvature.cost import Cost, Stationarity, per_parameter
from deltauq.curvature.flatness import measure_flatness
from deltauq.curvature.minimization import Polished
from deltauq.curvature.minimization import polish as minimise
from deltauq.data.batches import Batches
from deltauq.data.training import TrainingData
from deltauq.data.weights import WeightKind
from deltauq.delta.rates import read_rates
from deltauq.delta.residual_noise import residual_noise
from deltauq.errors import DeltaUQError, InvalidInputError, check_count, optional
from deltauq.evaluation.checks import (
    Finding,
    classes_seen,
    closeness_to_minimum,
    curvature_of_loss,
    extremes,
    loss_as_understood,
    mask_seen,
    normalisation,
    origin,
    randomness,
    rates_seen,
    refusal,
    weight_decay,
    weights_seen,
)
from deltauq.evaluation.diagnosis_tables import (
    choice_of_route,
    costs_table,
    findings_table,
    rates_table,
    routes_table,
)
from deltauq.evaluation.route_estimates import RouteEstimate, estimate_routes
from deltauq.evaluation.sample_estimates import (
    CostEstimate,
    curvatures_of,
    estimate_costs,
    estimate_shift,
    extreme_eigenvalues,
    sample,
)
from deltauq.likelihoods import Likelihood, read_likelihood
from deltauq.network.derivative_audit import obstacles_to_second_derivatives, refuse_false_gradients
from deltauq.network.interpretation import InterpretedModel, interpret
from deltauq.network.l2 import (
    L2,
    VariableRate,
    check_l2,
    l2_sources,
    refuse_other_terms,
)
from deltauq.network.network import Layers, Network
from deltauq.network.probe_rows import probe_rows
from deltauq.prediction.tables import notebook_table
from deltauq.runtime.faults import faults_told
from deltauq.runtime.showing import Shown

if TYPE_CHECKING:
    import pandas as pd
    import rich.console

__all__ = ["Diagnosis", "diagnose"]

Array = npt.NDArray[Any]
Result = TypeVar("Result")

#: What `polish=True` aims at, and its iterations.
_POLISHED = 1e-3
_ITERATIONS = 2_000


@dataclass(frozen=True)
class Diagnosis(Shown):
    """Findings of `diagnose` on a model and its training data, before any fit.

    Attributes:
        findings: in the order they were looked at.
        rates: the L2 rate of every variable, and where it was read.
        stationarity: gradient norms of the cost at the weights, and the shift by the GGN of a part
            of the data; None where it could not be formed.
        eigenvalues: the smallest and the largest Ritz value of the exact Hessian of the data, from
            a few products on a part of it; None where it cannot be formed.
        costs: memory and time that eigenpairs of each curvature would take.
        routes: what each way to the standard errors would cost, and which one `route="auto"` takes.
        polished: the end of `polish=True`; None without.
    """

    findings: tuple[Finding, ...]
    rates: tuple[VariableRate, ...] = ()
    stationarity: Stationarity | None = None
    eigenvalues: tuple[float, float] | None = None
    costs: tuple[CostEstimate, ...] = ()
    routes: tuple[RouteEstimate, ...] = ()
    polished: Polished | None = None
    _network: Network | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        levels = [finding.level for finding in self.findings]
        return f"Diagnosis({levels.count('error')} errors, {levels.count('warning')} warnings)"

    @property
    def ok(self) -> bool:
        """Whether there is no warning and no error among the findings."""
        return all(finding.level in ("ok", "note") for finding in self.findings)

    @property
    def advice(self) -> str:
        """What to do next, in a sentence."""
        if any(finding.level == "error" for finding in self.findings):
            return "Mend the errors first: there can be no standard errors before."
        tune = ""
        if any(finding.level == "warning" for finding in self.of("l2")):
            tune = " with the L2 rate 'tune', which has one chosen from the training data"
        return (
            f"The model can be fitted as it is{tune}; `caveats` of the fit has all to know of it."
        )

    @property
    def taken_routes(self) -> tuple[RouteEstimate, ...]:
        """The routes that fits take where none is asked for, one a curvature, with their `why`."""
        return tuple(route for route in self.routes if route.is_taken)

    def of(self, subject: str) -> tuple[Finding, ...]:
        """Findings on one subject, such as "l2", in their order."""
        return tuple(finding for finding in self.findings if finding.subject == subject)

    def apply_polished(self) -> Any:
        """Give the model the polished weights and return it; `diagnose` itself never changes it."""
        if self.polished is None or self._network is None:
            raise InvalidInputError(
                "there are no polished weights",
                expected="a diagnosis with polish=True",
                received="one without",
            )
        network = self._network
        pieces = np.split(self.polished.params, [p.stop for p in network.parameters[:-1]])
        for variable, piece in zip(network.variables, pieces, strict=True):
            variable.assign(piece.reshape(variable.shape).astype(network.dtype))
        return network.model

    def to_frame(self) -> pd.DataFrame:
        """The findings as a pandas frame."""
        frames = optional("pandas", needed_by="to_frame() needs pandas", extra="report")
        columns = ("subject", "level", "what", "why", "remedy")
        return frames.DataFrame(
            [{name: getattr(f, name) for name in columns} for f in self.findings]
        )

    def to_html(self, title: str = "Diagnosis") -> str:
        """The diagnosis as one HTML page, for a reader without the code."""
        return self._page("of_diagnosis", title=title)

    def _repr_html_(self) -> str | None:
        """The findings in a notebook; the text without pandas."""
        return notebook_table("Diagnosis", self.to_frame)

    def __rich__(self) -> rich.console.Group:
        """Tables for a terminal: `rich.print(diagnosis)`."""
        from rich.console import Group

        tables: list[Any] = [findings_table(self.findings)]
        if self.rates:
            tables.append(rates_table(self.rates))
        if self.costs:
            tables.append(costs_table(self.costs))
        if self.routes:
            tables += [routes_table(self.routes), *map(choice_of_route, self.taken_routes)]
        return Group(*tables, self.advice)


@faults_told("diagnosing")
def diagnose(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    *,
    polish: bool | int = False,
    l2: L2 = "auto",
    likelihood: str | Likelihood = "auto",
    layers: Layers = None,
    weights: WeightKind = "auto",
    rank: int = 100,
) -> Diagnosis:
    """Look for everything that would make standard errors wrong, before computing any.

    Takes a pass over the data and a few products on a part of it. Never raises for what it finds:
    what cannot be used is a finding of level "error".

    Args:
        model: as for `DeltaMethod`.
        x: the training inputs, or a dataset, as `DeltaMethod.fit` takes them.
        y: their labels.
        sample_weight: their weights.
        class_weight: class number -> weight.
        polish: minimise the cost further by L-BFGS, on a copy of the weights; see
            `Diagnosis.apply_polished`. A number: of iterations, beyond the usual 2,000.
        l2: as for `DeltaMethod`; with "tune", which needs a fit, the rates of the model itself.
        likelihood: as for `DeltaMethod`.
        layers: as for `DeltaMethod`.
        weights: as for `DeltaMethod`.
        rank: eigenpairs for which memory and time are estimated.

    Raises:
        InvalidInputError: polish or rank is no number that could be meant.
    """
    check_count("rank", rank)
    if not isinstance(polish, bool):
        check_count("polish", polish, or_else=", True or False")
    tunes = isinstance(l2, str) and l2 == "tune"
    l2 = "auto" if tunes else l2
    found = _Examination(_of_layers(model))
    with suppress(_RefusedError):
        network = found.attempt("model", lambda: Network(model, layers=layers))
        found.facts["_network"] = network
        if network.model is not model:  # it came out of a file
            found.add(*origin(network), *_of_layers(network.model))
        found.attempt("l2", lambda: check_l2(l2))
        found.add(*weight_decay(network))
        found.add(Finding("precision", "ok", f"{network.dtype} throughout"))
        found.attempt("l2", lambda: found.add(rates_seen(l2_sources(network.variables, l2), tunes)))
        training = found.attempt(
            "data", lambda: TrainingData(x, y, sample_weight, class_weight).of_model(network.model)
        )
        probe = found.attempt("data", lambda: probe_rows(network, training.x))
        interpreted = _interpret(found, network, probe, likelihood)
        found.attempt("model", lambda: refuse_false_gradients(interpreted.network, probe))
        if l2 == "auto":
            found.attempt("l2", lambda: refuse_other_terms(network.terms_added(probe)))
        problem = found.attempt("data", lambda: _problem(interpreted, training, l2, weights))
        found.facts["rates"] = problem.rates
        found.add(*mask_seen(problem.data))
        found.add(*weights_seen(problem.data))
        found.add(*classes_seen(problem.data, problem.likelihood, interpreted.n_outputs))
        _examine_minimum(found, problem, probe, polish=polish)
        _examine_curvature(found, problem, probe, rank)
    return Diagnosis(tuple(found.findings), **found.facts)


def _of_layers(model: Any) -> list[Finding]:
    return [*randomness(model), *normalisation(model)]


class _RefusedError(Exception):
    """Nothing more can be looked at."""


@dataclass
class _Examination:
    """What was found so far.

    Attributes:
        findings: in their order.
        facts: further attributes of the `Diagnosis`.
        guessed: the loss was refused, and what goes on is by the model's last operation: labels
            that do not fit that are no fault of theirs.
    """

    findings: list[Finding]
    facts: dict[str, Any] = field(default_factory=dict)
    guessed: bool = False

    def add(self, *findings: Finding) -> None:
        """Note some findings."""
        self.findings.extend(findings)

    def attempt(self, subject: str, action: Callable[[], Result]) -> Result:
        """The result of an action; where it is refused, that is the last finding."""
        try:
            return action()
        except DeltaUQError as error:
            if not (self.guessed and subject == "data"):
                self.add(refusal(subject, error))
            raise _RefusedError from error


def _interpret(
    found: _Examination, network: Network, probe: Any, likelihood: str | Likelihood
) -> InterpretedModel:
    """The model's likelihood; where its loss is refused, that of its last operation, to go on."""
    inspection = found.attempt("model", lambda: network.inspect(probe))
    try:
        interpreted = interpret(network, inspection, likelihood)
        found.add(loss_as_understood(network, likelihood, interpreted))
    except DeltaUQError as error:
        found.add(refusal("loss", error))
        found.guessed = True
        n_outputs = inspection.output.shape[-1]
        with suppress(DeltaUQError):
            by_link = read_likelihood(None, inspection.link, n_outputs).likelihood
            return interpret(network, inspection, by_link)
        raise _RefusedError from error
    return interpreted


@dataclass(frozen=True)
class _Problem:
    """A model on its data."""

    interpreted: InterpretedModel
    likelihood: Likelihood
    data: Batches
    rates: tuple[VariableRate, ...]

    @property
    def network(self) -> Network:
        """The model."""
        return self.interpreted.network

    @property
    def per_variable(self) -> Array:
        """The L2 rates beside the mean of the likelihood's loss `[n]`."""
        beside_cost = np.array([rate.rate for rate in self.rates])
        return beside_cost / self.likelihood.dispersion(self.interpreted.n_outputs)


def _problem(
    interpreted: InterpretedModel, training: TrainingData, l2: L2, weights: WeightKind
) -> _Problem:
    data = Batches(
        *training,
        likelihood=interpreted.likelihood,
        n_outputs=interpreted.n_outputs,
        dtype=interpreted.network.dtype,
        batch_size=1024,
        mask=interpreted.mask,
        weights=weights,
    )
    likelihood = interpreted.likelihood
    if likelihood.needs_noise:
        likelihood = residual_noise(interpreted, data)
    return _Problem(interpreted, likelihood, data, read_rates(interpreted, data, l2))


def _examine_minimum(
    found: _Examination, problem: _Problem, probe: Any, *, polish: bool | int
) -> None:
    """The gradient of the cost, how far a step to the minimum is, and where L-BFGS ends."""
    network, kinks = problem.network, problem.interpreted.inspection.kinks
    rates = per_parameter(network.parameters, problem.per_variable)
    cost = Cost(network, problem.likelihood, problem.data, rates)
    here = network.params.numpy()
    measured = found.attempt("stationarity", lambda: cost.measure(here))
    stationarity, gradient = measured.beside(rates)
    parts = (network, problem.likelihood, problem.data, probe, rates, gradient)
    shift = estimate_shift(*parts, problem.interpreted.n_outputs, problem.interpreted.mask)
    stationarity = replace(stationarity, shift=shift)
    polished = None
    if polish:
        iterations = _ITERATIONS if polish is True else polish
        polished = minimise(cost, here, tolerance=_POLISHED, max_iterations=iterations, kinks=kinks)
    found.facts |= {"stationarity": stationarity, "polished": polished}
    found.add(*closeness_to_minimum(stationarity, kinks, polished))


def _examine_curvature(found: _Examination, problem: _Problem, probe: Any, rank: int) -> None:
    """Extreme eigenvalues, and what eigenpairs would cost."""
    network, n_outputs = problem.network, problem.interpreted.n_outputs
    flatness = found.attempt(
        "curvature", lambda: measure_flatness(network, problem.likelihood, problem.data)
    )
    found.add(*curvature_of_loss(flatness, problem.likelihood))
    obstacles = obstacles_to_second_derivatives(network, probe)
    some = sample(network, problem.data)
    operators = curvatures_of(network, problem.likelihood, some, second_derivatives=not obstacles)
    ends = None if obstacles else extreme_eigenvalues(operators["hessian"])
    found.add(*extremes(ends, problem.per_variable, network.dtype, obstacles))
    costs = estimate_costs(operators, some.share, n_outputs, rank)
    routes = estimate_routes(operators, problem.data.n_rows, n_outputs, problem.per_variable)
    found.facts |= {"eigenvalues": ends, "costs": tuple(costs), "routes": tuple(routes)}
