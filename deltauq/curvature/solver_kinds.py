"""What a solver of eigenpairs is, and by which name an operator asks for it.

A new solver is one function with `@register_solver`, and an operator whose attribute `solver` is
the name it was registered by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from deltauq.curvature.operator import CurvatureOperator
from deltauq.linalg import Eigenpairs, Ends, Storage

__all__ = ["SOLVERS", "MakeSolver", "Solver", "SolverKind", "register_solver", "solver_of"]


class Solver(Protocol):
    """Finds eigenpairs; what it has computed is kept between calls."""

    def solve(self, rank: int) -> Eigenpairs:
        """Find the K leading pairs, or as many of them as converge.

        Args:
            rank: K.
        """

    def certified(
        self, pairs: Eigenpairs, step: int | None = None, unit: float = 1.0
    ) -> Eigenpairs:
        """Add a bound on what the last pairs leave out.

        Args:
            pairs: as `solve` gave them last.
            unit: the L2 rate that standard errors will be taken at, in those of the operator: the
                bound is good enough where they cannot tell a better one.
            step: 1, 2, ... of ranks that are tried one after the other; None for the only one. The
                bound of step j may fail with probability f / 2^j, f the chance that is stated. What
                is tried next depends on the bounds so far, so that f must be the chance that any of
                them fails: at most the sum, however many there are.
        """


class MakeSolver(Protocol):
    """A function that makes a solver of an operator."""

    def __call__(
        self,
        operator: CurvatureOperator,
        *,
        ends: Ends,
        fresh: int,
        dtype: str,
        seed: int,
        storage: Storage | None,
    ) -> Solver:
        """The solver.

        Args:
            operator: the curvature.
            ends: of the spectrum; other than "largest" only for `finds_low_end`.
            fresh: columns of a random block that `certified` will start from; 0 where it will not
                be called.
            dtype: of the eigenvectors.
            seed: of the random start.
            storage: where vectors of length P live; None for memory.
        """


@dataclass(frozen=True)
class SolverKind:
    """How one kind of solver finds eigenpairs, and what it takes to do so.

    Attributes:
        make: makes the solver of an operator.
        columns: K, P -> vectors of length P, at most, that it holds at once.
        finds_low_end: it can be asked for the smallest eigenvalues too.
        largest_automatic_rank: where `rank="auto"` ends for want of time; None where memory alone
            ends it.
        products_per_pair: products that an eigenpair takes, as a rule; None where all of them
            together take two products with a block.
        measures_tail: `make` takes `tail`, the `TailInputs` that `certified` is to measure the tail
            on, or None.
        passes: the curvature, K, rows of positive weight -> passes over the data that finding pairs
            takes, at most where they come one by one; None where nobody knows.
    """

    make: Callable[..., Solver]
    columns: Callable[[int, int], int]
    finds_low_end: bool = False
    largest_automatic_rank: int | None = None
    products_per_pair: float | None = None
    measures_tail: bool = False
    passes: Callable[[CurvatureOperator, int, float], float] | None = None


#: Every solver, by the name that operators ask for.
SOLVERS: dict[str, SolverKind] = {}


def register_solver(
    name: str, *, columns: Callable[[int, int], int], **facts: Any
) -> Callable[[MakeSolver], MakeSolver]:
    """A decorator that makes a solver known by a name.

    Args:
        name: for `CurvatureOperator.solver`.
        columns: as of `SolverKind`.
        **facts: the other attributes of `SolverKind`.
    """

    def register(make: MakeSolver) -> MakeSolver:
        SOLVERS[name] = SolverKind(make, columns, **facts)
        return make

    return register


def solver_of(operator: CurvatureOperator | type[CurvatureOperator]) -> SolverKind:
    """The kind of solver that an operator asks for, or that its spectrum allows."""
    by_spectrum = "nystrom" if operator.positive_semidefinite else "lanczos"
    return SOLVERS[operator.solver or by_spectrum]
