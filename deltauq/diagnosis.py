"""`diagnose`: everything that would make the numbers wrong, before they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from deltauq.cost import Cost, Stationarity, per_parameter
from deltauq.data import Batches, probe_rows
from deltauq.errors import DeltaUQError, InvalidInputError, MissingDependencyError
from deltauq.estimates import CostEstimate, estimate_costs, extreme_eigenvalues, sample
from deltauq.likelihoods import Likelihood, check_compiled_loss, resolve_likelihood
from deltauq.network import Inspection, Layers, Network
from deltauq.regularization import L2, VariableRate, l2_sources
from deltauq.training import Polished, polish

if TYPE_CHECKING:
    import pandas as pd
    import rich.console

__all__ = ["Diagnosis", "Finding", "diagnose"]

Array = npt.NDArray[Any]
Level = Literal["ok", "note", "warning", "error"]

#: Gradient norm relative to its larger part up to which weights count as a minimum.
_STATIONARY = 0.02

#: What `polish=True` aims at, and its iterations.
_POLISHED = 1e-3
_ITERATIONS = 2_000

_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at: "model", "precision", "randomness", "normalisation", "loss",
            "l2", "weight decay", "classes", "data", "stationarity" or "curvature".
        level: "ok", "note" (worth knowing), "warning" (the numbers will be off) or "error" (there
            will be none).
        what: was found.
        why: it matters; empty where all is well.
        remedy: what to do; empty where there is nothing to do.
    """

    subject: str
    level: Level
    what: str
    why: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        findings: in the order they were looked at.
        rates: the L2 rate of every variable, and where it was read.
        stationarity: gradient norms of the cost at the weights; None where it could not be formed.
        eigenvalues: the smallest and the largest Ritz value of the exact Hessian of the data, from
            a few products on a part of it; None where it cannot be formed.
        costs: memory and time that each curvature would take.
        polished: the end of `polish=True`; None without.
    """

    findings: tuple[Finding, ...]
    rates: tuple[VariableRate, ...] = ()
    stationarity: Stationarity | None = None
    eigenvalues: tuple[float, float] | None = None
    costs: tuple[CostEstimate, ...] = ()
    polished: Polished | None = None
    _network: Network | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """No warning and no error."""
        return all(finding.level in ("ok", "note") for finding in self.findings)

    def of(self, subject: str) -> tuple[Finding, ...]:
        """The findings on one subject."""
        return tuple(finding for finding in self.findings if finding.subject == subject)

    def apply_polished(self) -> None:
        """Give the model the polished weights; `diagnose` itself never changes it."""
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

    def to_frame(self) -> pd.DataFrame:
        """The findings as a pandas frame."""
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError(
                "to_frame() needs pandas", remedy='pip install "deltauq[report]"'
            ) from error
        columns = ("subject", "level", "what", "why", "remedy")
        return pd.DataFrame([{name: getattr(f, name) for name in columns} for f in self.findings])

    def __rich__(self) -> rich.console.Group:
        """Tables for a terminal: `rich.print(diagnosis)`."""
        from rich.console import Group

        tables = [_findings_table(self.findings), _rates_table(self.rates)]
        return Group(*tables, _costs_table(self.costs))


def diagnose(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    polish: bool = False,
    l2: L2 = "auto",
    likelihood: str | Likelihood = "auto",
    layers: Layers = None,
    rank: int = 100,
) -> Diagnosis:
    """Look for everything that would make standard errors wrong, before computing any.

    Takes a pass over the data and a few products on a part of it. Never raises for what it finds:
    what cannot be used is a finding of level "error".

    Args:
        model: as for `DeltaMethod`.
        x: the training inputs.
        y: their class numbers.
        sample_weight: their weights.
        polish: minimise the cost further by L-BFGS, on a copy of the weights; see
            `Diagnosis.apply_polished`.
        l2: as for `DeltaMethod`.
        likelihood: as for `DeltaMethod`.
        layers: as for `DeltaMethod`.
        rank: eigenpairs for which memory and time are estimated.
    """
    network, findings = _attempt("model", lambda: Network(model, layers=layers))
    if network is None:
        return Diagnosis((*findings, *_randomness(model), *_weight_decay(model)))
    findings = [Finding("precision", "ok", f"{network.dtype} throughout")]
    probe, problems = _attempt("data", lambda: probe_rows(x, dtype=network.dtype, n=3))
    findings += problems
    inspection = None
    if probe is not None:
        inspection, problems = _attempt("model", lambda: network.inspect(probe))
        findings += problems
    findings += [*_randomness(model), *_normalisation(model), *_weight_decay(model)]
    rates, problems = _attempt("l2", lambda: l2_sources(network.variables, l2))
    findings += problems or _missing_l2(rates)
    report = Diagnosis(tuple(findings), rates=rates or (), _network=network)
    if inspection is None or rates is None:
        return report
    findings += _loss(model, inspection, likelihood)
    resolved = resolve_likelihood(likelihood)
    data, problems = _attempt(
        "data",
        lambda: Batches(
            x,
            y,
            sample_weight,
            likelihood=resolved,
            n_outputs=inspection.n_outputs,
            dtype=network.dtype,
            batch_size=1024,
        ),
    )
    findings += problems
    if data is None:
        return replace(report, findings=tuple(findings))
    findings += _classes(data, inspection.n_outputs)
    rates = l2_sources(network.variables, l2, read_scale=data.n_rows / data.n_examples)
    per_variable = np.array([rate.rate for rate in rates])
    cost = Cost(network, resolved, data, per_parameter(network.parameters, per_variable))
    stationarity, problems = _attempt(
        "stationarity", lambda: cost.stationarity(network.params.numpy())
    )
    findings += problems
    if stationarity is None:
        return replace(report, findings=tuple(findings))
    polished = _polish(cost, network, inspection) if polish else None
    findings += _stationarity(stationarity, inspection, polished)
    twice, eigenvalues = not inspection.once_differentiable, None
    some = sample(network, resolved, data, inspection.n_outputs)
    if twice:
        eigenvalues = extreme_eigenvalues(network, resolved, some)
    findings += _curvature(eigenvalues, per_variable, network, inspection)
    costs = estimate_costs(
        network, resolved, some, inspection.n_outputs, rank, second_derivatives=twice
    )
    return replace(
        report,
        findings=tuple(findings),
        rates=rates,
        stationarity=stationarity,
        eigenvalues=eigenvalues,
        costs=tuple(costs),
        polished=polished,
    )


def _attempt(subject: str, action: Callable[[], Any]) -> tuple[Any, list[Finding]]:
    """The result of an action, or None and what stopped it as a finding."""
    try:
        return action(), []
    except DeltaUQError as error:
        what = error.problem + (f" ({error.received})" if error.received else "")
        why = f"deltauq needs {error.expected}" if error.expected else "it cannot be used"
        return None, [Finding(subject, "error", what, why, error.remedy or "")]


def _layers(model: Any, *kinds: type) -> list[str]:
    found: list[Any] = getattr(model, "_flatten_layers", list)()
    return [layer.name for layer in found if isinstance(layer, kinds)]


def _randomness(model: Any) -> Iterator[Finding]:
    names = _layers(
        model,
        keras.layers.Dropout,
        keras.layers.SpatialDropout1D,
        keras.layers.SpatialDropout2D,
        keras.layers.SpatialDropout3D,
        keras.layers.GaussianDropout,
        keras.layers.GaussianNoise,
    )
    if names:
        yield Finding(
            "randomness",
            "note",
            f"layers that are random in training: {names}",
            "they are switched off here, and the weights minimised a noisier cost: the gradient of "
            "this one need not vanish",
            "look at the stationarity; polish=True, or train the last epochs without them",
        )


def _normalisation(model: Any) -> Iterator[Finding]:
    names = _layers(model, keras.layers.BatchNormalization)
    if names:
        yield Finding(
            "normalisation",
            "note",
            f"batch normalisation in {names} uses its moving averages",
            "training used the statistics of its batches, so the weights need not minimise this "
            "cost",
            "look at the stationarity; polish=True mends it",
        )


def _weight_decay(model: Any) -> Iterator[Finding]:
    optimizer = getattr(model, "optimizer", None)
    decay = getattr(optimizer, "weight_decay", None)
    if decay:
        yield Finding(
            "weight decay",
            "warning",
            f"the optimizer {type(optimizer).__name__} decays the weights (weight_decay={decay:g})",
            "that is no L2 penalty of the cost, and no rate can be read from it: the weights "
            "minimise another cost than the one that is understood",
            "train with keras.regularizers.L2 instead; or give the rate to assume with l2=..., or "
            "l2='tune', and look at the stationarity",
        )


def _missing_l2(rates: tuple[VariableRate, ...]) -> list[Finding]:
    missing = [rate.path for rate in rates if rate.rate == 0]
    if not missing:
        found = sorted({rate.rate for rate in rates})
        text = ", ".join(f"{rate:.3g}" for rate in found[:5])
        return [Finding("l2", "ok", f"every variable has an L2 rate ({text})")]
    every = len(missing) == len(rates)
    return [
        Finding(
            "l2",
            "warning",
            "no variable has an L2 rate" if every else f"no L2 rate for {missing}",
            "directions that the data do not determine have no bound on their variance without it",
            "pass l2='tune', l2=... (a rate, or {pattern: rate})"
            + ("" if every else ", or leave those variables out with layers=..."),
        )
    ]


def _loss(model: Any, inspection: Inspection, likelihood: str | Likelihood) -> list[Finding]:
    understood = "softmax cross-entropy on " + (
        "the input of the last softmax" if inspection.ends_in_softmax else "logits"
    )
    if not getattr(model, "compiled", False):
        return [
            Finding(
                "loss",
                "note",
                f"the model was not compiled; understood as {understood}",
                "the curvature must be that of the loss that was minimised",
                "check that it was this one",
            )
        ]
    if likelihood != "auto":
        return [Finding("loss", "note", f"as given: {likelihood!r}; understood as {understood}")]
    _, problems = _attempt("loss", lambda: check_compiled_loss(model, inspection.ends_in_softmax))
    return problems or [Finding("loss", "ok", f"as compiled; understood as {understood}")]


def _classes(data: Batches, n_outputs: int) -> Iterator[Finding]:
    counts = np.zeros(n_outputs)
    for batch in data:
        weight = batch.weight.numpy()
        counts += np.bincount(batch.y.numpy(), weights=weight, minlength=n_outputs)
    unseen = np.flatnonzero(counts == 0)
    if len(unseen):
        yield Finding(
            "classes",
            "warning",
            f"no example of class {', '.join(map(str, unseen))} out of {n_outputs}",
            "its probability is an extrapolation, and its standard error is mostly that of L2",
            "leave the class out of the model, or add examples of it",
        )
    else:
        rarest = int(np.argmin(counts))
        yield Finding(
            "classes",
            "ok",
            f"all {n_outputs} classes are seen; the rarest is {rarest}, {counts[rarest]:g} of "
            f"{counts.sum():g}",
        )


def _polish(cost: Cost, network: Network, inspection: Inspection) -> Polished:
    return polish(
        cost,
        network.params.numpy(),
        tolerance=_POLISHED,
        max_iterations=_ITERATIONS,
        kinks=inspection.kinks,
    )


def _stationarity(
    found: Stationarity, inspection: Inspection, polished: Polished | None
) -> Iterator[Finding]:
    parts = (
        f"the gradient's norm is {found.gradient_norm:.3g}, {found.ratio:.2g} of the larger of its "
        f"parts (data {found.data_norm:.3g}, L2 {found.l2_norm:.3g})"
    )
    if found.ratio <= _STATIONARY:
        yield Finding("stationarity", "ok", parts)
    else:
        kink = f"; {list(inspection.kinks)} have kinks" if inspection.kinks else ""
        yield Finding(
            "stationarity",
            "warning",
            parts + kink,
            "the Delta method describes a minimum of the cost, and these weights are none: it was "
            "not trained to the end, or l2 is not what it was trained with",
            "polish=True, train further with a smaller learning rate, or give the right l2",
        )
    if polished is not None:
        yield Finding(
            "stationarity",
            "note",
            f"polished by {polished.iterations} iterations of L-BFGS on a copy: "
            f"{polished.verdict}, {polished.stationarity.ratio:.2g} of its parts; cost "
            f"{found.cost:.6g} to {polished.stationarity.cost:.6g}",
            "the model itself was not changed",
            "diagnosis.apply_polished() gives it these weights",
        )


def _curvature(
    eigenvalues: tuple[float, float] | None,
    rates: Array,
    network: Network,
    inspection: Inspection,
) -> Iterator[Finding]:
    if eigenvalues is None:
        yield Finding(
            "curvature",
            "note",
            f"the exact Hessian cannot be formed: {list(inspection.once_differentiable)}",
            "TensorFlow's second derivative of those operations is wrong or missing",
            "use curvature='ggn' or 'opg'",
        )
        return
    smallest, largest = eigenvalues
    text = f"eigenvalues of the exact Hessian from {smallest:.3g} to {largest:.3g}"
    rate = float(np.min(rates))
    if smallest + rate <= 0:
        yield Finding(
            "curvature",
            "warning",
            f"{text}, with L2 from {rate:.3g}: not positive definite",
            "an exact Hessian that is not positive definite has no inverse covariance",
            "use curvature='ggn' or 'opg', negative_curvature='project' (the default), more L2, or "
            "train further",
        )
    else:
        yield Finding("curvature", "ok", text)
    resolution = float(np.finfo(network.dtype).eps) * largest
    if rate and resolution > 0.1 * rate:
        yield Finding(
            "precision",
            "warning",
            f"the rounding of {network.dtype}, {resolution:.1g}, is close to the L2 rate",
            "directions that L2 matters for drown in rounding",
            "scale the inputs, raise l2, or build the model in float64",
        )


def _findings_table(findings: tuple[Finding, ...]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Diagnosis", show_lines=True)
    for name in ("subject", "level", "found", "why it matters", "what to do"):
        table.add_column(name)
    for f in findings:
        cells = [Text(text) for text in (f.subject, f.level, f.what, f.why, f.remedy)]
        cells[1].stylize(_STYLES[f.level])
        table.add_row(*cells)
    return table


def _rates_table(rates: tuple[VariableRate, ...]) -> Any:
    from rich.table import Table

    table = Table("variable", "L2 rate", "read from", title="L2")
    for rate in rates:
        table.add_row(rate.path, f"{rate.rate:.3g}", rate.source)
    return table


def _costs_table(costs: tuple[CostEstimate, ...]) -> Any:
    from rich.table import Table

    title = f"What {costs[0].rank} eigenpairs would take" if costs else "Costs"
    table = Table("curvature", "memory", "time", title=title)
    for cost in costs:
        table.add_row(cost.curvature, f"{cost.n_bytes / 2**30:.2f} GiB", f"{cost.seconds:.0f} s")
    return table
