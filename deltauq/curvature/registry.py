"""What a curvature is called, what it is made of, and what else there is to know of it: once.

Everything that asks for a curvature by its name, from `DeltaMethod` to the words of a report, asks
the object that is registered here. A new curvature is an operator and one call of `register`:

    register(CurvatureKind("doubled", DoubledGGN, short_name="twice the GGN"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deltauq.curvature.gram import GGN, OPG, SandwichMeat
from deltauq.curvature.hessian import Hessian
from deltauq.curvature.operator import CurvatureOperator
from deltauq.errors import InvalidInputError

__all__ = ["CURVATURES", "Curvature", "CurvatureKind", "names_where", "register"]

#: The name of a curvature, one of those in `CURVATURES`.
Curvature = str


@dataclass(frozen=True)
class CurvatureKind:
    """A curvature that can be asked for by its name.

    The covariance of the parameters is (1/N) A^-1 with A the bread plus L2; where there is a meat
    M, it is (1/N) A^-1 M A^-1. Which solver finds eigenpairs and which bounds hold follows from the
    operators' own attributes: see `CurvatureOperator`.

    Attributes:
        name: by which `DeltaMethod` and the others take it.
        bread: the operator whose inverse the covariance holds.
        meat: the operator between two inverses; None where the covariance is one inverse.
        short_name: in the sentences of a report; the name where it is empty.
        spelled_out: what the short name stands for, beside it in a report; may be empty.
        meaning: what it is, half a sentence for readers of a report; may be empty.
    """

    name: str
    bread: type[CurvatureOperator]
    meat: type[CurvatureOperator] | None = None
    short_name: str = ""
    spelled_out: str = ""
    meaning: str = ""

    @property
    def operators(self) -> tuple[type[CurvatureOperator], ...]:
        """The operators that a fit multiplies vectors with: bread, and meat where there is one."""
        return (self.bread,) if self.meat is None else (self.bread, self.meat)

    @property
    def is_sandwich(self) -> bool:
        """Whether there is a meat, so that the covariance is no inverse and no posterior's."""
        return self.meat is not None

    @property
    def meat_or_bread(self) -> type[CurvatureOperator]:
        """The operator between two inverses, where a likelihood asks for them: meat or bread."""
        return self.meat or self.bread

    @property
    def semidefinite(self) -> bool:
        """Whether the covariance is one inverse of a matrix without negative eigenvalues."""
        return not self.is_sandwich and self.bread.positive_semidefinite

    @property
    def made_of_scores(self) -> bool:
        """Whether gradients of the loss are enough for it, so that a linear loss has it too."""
        return all(operator.made_of_scores for operator in self.operators)

    @property
    def second_derivatives(self) -> bool:
        """Whether any of the operators holds second derivatives of the network."""
        return any(operator.second_derivatives for operator in self.operators)

    @property
    def noise_power(self) -> int:
        """How the inverse goes with the noise of a regression, in units of the log-likelihood.

        Twice the noise halves a second derivative of the loss, and quarters squares of its first
        one: the inverse goes with the noise to the power of 1, or of 2.
        """
        return 2 if self.bread.made_of_scores else 1


#: Every curvature that can be asked for, by name.
CURVATURES: dict[str, CurvatureKind] = {}


def register(kind: CurvatureKind) -> CurvatureKind:
    """Make a curvature known by its name.

    Args:
        kind: the curvature.

    Returns:
        The same.

    Raises:
        InvalidInputError: another curvature has that name.
    """
    if kind.name in CURVATURES:
        raise InvalidInputError(
            "a curvature of this name is known already",
            expected=f"a name other than {list(CURVATURES)}",
            received=repr(kind.name),
        )
    CURVATURES[kind.name] = kind
    return kind


def names_where(holds: Callable[[CurvatureKind], bool], last: str = "and") -> str:
    """The names of the curvatures of which something holds, as a sentence lists them."""
    quoted = [repr(name) for name, kind in CURVATURES.items() if holds(kind)]
    *first, final = quoted or ["none"]
    return f"{', '.join(first)} {last} {final}" if first else final


register(
    CurvatureKind(
        "hessian",
        Hessian,
        short_name="exact Hessian",
        meaning="the full second derivative of the cost: what the theory asks for, and the slowest",
    )
)
register(
    CurvatureKind(
        "opg",
        OPG,
        short_name="OPG",
        spelled_out="outer products of gradients",
        meaning="the mean outer product of the examples' gradients: first derivatives only, and "
        "cheap",
    )
)
register(
    CurvatureKind(
        "ggn",
        GGN,
        short_name="GGN",
        spelled_out="generalized Gauss-Newton matrix",
        meaning="the Hessian without the network's own second derivatives, which is the Fisher "
        "information: never negative",
    )
)
register(
    CurvatureKind(
        "sandwich",
        Hessian,
        SandwichMeat,
        short_name="Sandwich",
        meaning="the inverse Hessian on both sides of the outer products of gradients: for a model "
        "that need not be true",
    )
)
