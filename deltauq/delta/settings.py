"""The settings of a Delta method: each stands here once, checks itself, and is passed on whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, get_args

from deltauq.curvature.eigenpairs import Rank, check_rank_alone
from deltauq.curvature.parameter_covariance import NegativeCurvature
from deltauq.curvature.registry import CURVATURES, Curvature, CurvatureKind, names_where
from deltauq.curvature.sandwich import Meat
from deltauq.curvature.tails import Tail
from deltauq.data.batch_reader import check_batch_size
from deltauq.data.weights import WeightKind
from deltauq.delta.routes import ROUTES, RouteName
from deltauq.errors import InvalidInputError, check_choice, check_count, check_flag, check_share
from deltauq.likelihoods import Likelihood
from deltauq.linalg import Ends, Storage
from deltauq.network.l2 import L2, check_l2, complete_l2
from deltauq.network.network import Layers
from deltauq.runtime.memory import free_memory

__all__ = ["Settings"]

#: Whose a setting is: the covariance is made with it, and an artifact keeps what that one had; or
#: the method has it beside, and an artifact keeps it too; or an artifact does not keep it, because
#: it belongs to a process or machine (or, as the likelihood, because it is kept in another form).
_OF_COVARIANCE, _OF_METHOD, _OF_PROCESS = (
    {"whose": whose} for whose in ("covariance", "method", "process")
)

#: Tails that are measured, where they can be.
_MEASURED = ("auto", "calibrated")


@dataclass(frozen=True)
class Settings:
    """How a covariance is to be computed and used: the arguments of `DeltaMethod`, which see.

    A setting is added as a field here and as an argument there. An artifact then keeps it, or does
    not, as its metadata say.

    Raises:
        InvalidInputError: a choice that there is none of, a number out of range, or a memory limit
            that is not understood.
    """

    curvature: Curvature = field(default="ggn", metadata=_OF_COVARIANCE)
    rank: Rank = field(default="auto", metadata=_OF_COVARIANCE)
    l2: L2 = field(default="auto", metadata=_OF_METHOD)
    likelihood: str | Likelihood = field(default="auto", metadata=_OF_PROCESS)
    layers: Layers = field(default=None, metadata=_OF_METHOD)
    tail: Tail = field(default="auto", metadata=_OF_COVARIANCE)
    rank_tol: float = field(default=0.05, metadata=_OF_COVARIANCE)
    negative_curvature: NegativeCurvature = field(default="project", metadata=_OF_COVARIANCE)
    meat: Meat = field(default="opg", metadata=_OF_COVARIANCE)
    weights: WeightKind = field(default="auto", metadata=_OF_METHOD)
    bounds: bool = field(default=True, metadata=_OF_COVARIANCE)
    batch_size: int | None = field(default=None, metadata=_OF_METHOD)
    memory_limit: int | str | None = field(default=None, metadata=_OF_PROCESS)
    vectors_dir: str | Path | None = field(default=None, metadata=_OF_PROCESS)
    route: RouteName = field(default="auto", metadata=_OF_COVARIANCE)
    seed: int = field(default=0, metadata=_OF_COVARIANCE)
    progress: bool = field(default=True, metadata=_OF_METHOD)

    def __post_init__(self) -> None:
        check_choice("curvature", self.curvature, tuple(CURVATURES))
        check_l2(self.l2)
        check_choice("tail", self.tail, get_args(Tail))
        check_choice("negative_curvature", self.negative_curvature, get_args(NegativeCurvature))
        check_choice("meat", self.meat, get_args(Meat))
        check_choice("route", self.route, ROUTES)
        check_choice("weights", self.weights, get_args(WeightKind))
        check_rank_alone(self.rank)
        check_share("rank_tol", self.rank_tol, example=0.05)
        check_flag("bounds", self.bounds)
        check_flag("progress", self.progress)
        check_count("seed", self.seed, at_least=0)
        if self.tail == "calibrated":
            self._check_calibrated()
        if self.batch_size is not None:
            check_batch_size(self.batch_size)
        if self.memory_limit is not None:
            free_memory(self.memory_limit)

    def _check_calibrated(self) -> None:
        """Refuse a tail that cannot be measured."""
        what, expected = "tail='calibrated' cannot be had", "curvature='opg' or 'ggn', with bounds"
        if not self.kind.semidefinite:
            raise InvalidInputError(
                what,
                expected=expected,
                received=f"curvature={self.curvature!r}, of which no quadrature rule is known to "
                "stay on one side",
                remedy="pass tail='auto' or 'midpoint'; refine(x) estimates what the tail comes to "
                "at some inputs",
            )
        if not self.bounds:
            raise InvalidInputError(
                what,
                expected=expected,
                received="bounds=False, without whose passes over the data there is nothing to "
                "measure it with",
                remedy="pass bounds=True (the default), or tail='midpoint'",
            )

    def check_calibration(self) -> None:
        """Refuse calibration inputs where no tail is measured on them, and say why.

        Raises:
            InvalidInputError: another curvature than OPG and GGN, no bounds, or another tail.
        """
        measured = f"curvature={names_where(lambda kind: kind.semidefinite, 'or')}"
        wanted = (
            (self.kind.semidefinite, measured, f"curvature={self.curvature!r}"),
            (self.bounds, "bounds=True", f"bounds={self.bounds}"),
            (self.tail in _MEASURED, "tail='auto'", f"tail={self.tail!r}"),
        )
        differs = [(expected, received) for is_so, expected, received in wanted if not is_so]
        if differs:
            raise InvalidInputError(
                "calibration inputs have no use here: no tail is measured on them",
                expected=" and ".join(expected for expected, _ in differs),
                received=" and ".join(received for _, received in differs),
                remedy="leave calibration=... out, or change what differs",
            )

    @property
    def measures_tail(self) -> bool:
        """Whether the tail of a sketch is measured, as far as the settings say."""
        return self.tail in _MEASURED and self.bounds and self.kind.semidefinite

    @classmethod
    def among(cls, named: Mapping[str, Any]) -> Self:
        """The settings among named values, such as an object's attributes; others are left out."""
        names = {setting.name for setting in fields(cls)}
        return cls(**{name: value for name, value in named.items() if name in names})

    def as_arguments(self) -> dict[str, Any]:
        """The settings by name, as `DeltaMethod(model, ...)` takes them."""
        return {setting.name: getattr(self, setting.name) for setting in fields(self)}

    def of_covariance(self) -> dict[str, Any]:
        """The settings that a covariance is made with, by name, for an artifact."""
        return self._whose("covariance")

    def of_method(self) -> dict[str, Any]:
        """All settings that an artifact keeps of a method, by name.

        Layers that a function chooses are None: the artifact knows them by their variables.
        """
        kept = self._whose("covariance", "method")
        return kept | {"layers": None if callable(self.layers) else self.layers}

    def _whose(self, *whose: str) -> dict[str, Any]:
        chosen = [setting.name for setting in fields(self) if setting.metadata["whose"] in whose]
        return {name: getattr(self, name) for name in chosen}

    @property
    def kind(self) -> CurvatureKind:
        """The curvature itself, with all there is to know of it."""
        return CURVATURES[self.curvature]

    @property
    def tunes_l2(self) -> bool:
        """Whether the L2 rates are chosen by marginal likelihood."""
        return isinstance(self.l2, str) and self.l2 == "tune"

    def l2_to_start(self, variables: Sequence[Any]) -> L2:
        """The L2 rates as they are asked for; where they are to be chosen, those to start from."""
        return complete_l2(variables) if self.tunes_l2 else self.l2

    @property
    def l2_in_meat(self) -> bool:
        """Whether the meat of a sandwich has the L2 term."""
        return not self.kind.is_sandwich or self.meat == "opg"

    @property
    def ends(self) -> Ends:
        """Which ends of an indefinite spectrum count: the smallest dominate an inverse."""
        both = not self.kind.bread.positive_semidefinite
        return "both" if both and self.negative_curvature == "keep" else "largest"

    def storage(self) -> Storage:
        """Where the eigenvectors and the solver's other vectors of length P live."""
        return Storage(self.vectors_dir, argument="vectors_dir")
