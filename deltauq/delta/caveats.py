"""`Caveat`: what to know of a fit before its standard errors are believed, each in one place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deltauq.errors import ConvergenceWarning, CurvatureWarning, TunedL2Warning, warn

__all__ = ["SUBJECTS", "Caveat", "in_order", "tell"]

#: What a caveat may be about, the gravest first, and the warning of a fit with that one alone.
SUBJECTS: dict[str, type[Warning]] = {
    "minimum": ConvergenceWarning,
    "curvature": CurvatureWarning,
    "loss": CurvatureWarning,
    "data": CurvatureWarning,
    "precision": ConvergenceWarning,
    "rank": ConvergenceWarning,
    "tail": ConvergenceWarning,
    "noise": ConvergenceWarning,
    "l2": TunedL2Warning,
}


@dataclass(frozen=True)
class Caveat:
    """One thing to know of a fit before its standard errors are believed.

    Attributes:
        subject: "minimum" (the weights are far from one), "curvature" (the exact Hessian is that of
            none), "loss" (it has little curvature), "data" (they say next to nothing), "precision"
            (L2 drowns in rounding), "rank" (eigenpairs that were asked for are missing), "tail"
            (measuring it did not settle it), "noise" (no upper bound) or "l2" (chosen after
            training).
        in_short: a clause with the figure that matters.
        text: what it means for the standard errors, and what to do.
    """

    subject: str
    in_short: str
    text: str

    def __str__(self) -> str:
        return self.text


def in_order(caveats: Iterable[Caveat]) -> tuple[Caveat, ...]:
    """Put caveats in order, the gravest subject first; of those that say the same, the last."""
    subjects, said = list(SUBJECTS), {(each.subject, each.in_short): each for each in caveats}
    return tuple(sorted(said.values(), key=lambda each: subjects.index(each.subject)))


def tell(caveats: tuple[Caveat, ...]) -> None:
    """Warn of all caveats at once, by the category of the gravest; one alone is told in full."""
    if not caveats:
        return
    message = caveats[0].text
    if len(caveats) > 1:
        message = (
            f"{'; '.join(each.in_short for each in caveats)}. What each of these {len(caveats)} "
            "caveats means for the standard errors, and what to do, is in `caveats` of the fitted "
            "DeltaMethod."
        )
    warn(message, SUBJECTS[caveats[0].subject])
