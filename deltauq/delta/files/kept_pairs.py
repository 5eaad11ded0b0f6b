"""What is known from eigenpairs as the content of an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.calibrated_tail import TailByShare
from deltauq.curvature.noise_interval import NoiseRange
from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.delta.files.rounding import restored, round_covariance, round_pairs, rounded
from deltauq.delta.fitted import Fitted
from deltauq.delta.known import KnownByPairs
from deltauq.linalg import Eigenpairs, LowRank, MeasuredTail, NormBound

__all__ = ["VECTORS", "pack_pairs", "round_vectors", "unpack_pairs"]

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

#: The arrays of the vectors; those of the covariance where they are others.
VECTORS, _OWN_VECTORS = "eigenpairs/vectors", "covariance/vectors"


def round_vectors(fitted: Fitted, arrays: Arrays, dtype: str | None) -> tuple[Fitted, float]:
    """The fit that the file will give back, and what rounding costs; adds vectors to the arrays."""
    pairs, covariance, network = fitted.prior_pairs, fitted.covariance, fitted.problem.network
    shared = covariance.vectors is pairs.vectors or np.array_equal(
        covariance.vectors, pairs.vectors
    )
    if dtype is None:
        arrays[VECTORS] = pairs.vectors
        if not shared:
            arrays[_OWN_VECTORS] = covariance.vectors
        return fitted, 0.0
    arrays[VECTORS] = rounded(pairs.vectors, dtype)
    back = restored(arrays[VECTORS], network.dtype)
    own = back
    if not shared:
        arrays[_OWN_VECTORS] = rounded(covariance.vectors, dtype)
        own = restored(arrays[_OWN_VECTORS], network.dtype)
    covariance, error = round_covariance(covariance, own)
    pairs = round_pairs(pairs, back)
    return replace(fitted.with_pairs(pairs, covariance), rounded=True), error


def pack_pairs(fitted: Fitted, arrays: Arrays) -> dict[str, Any]:
    """The facts of pairs and covariance; adds all arrays but the vectors."""
    return {
        "pairs": _pack_pairs(fitted.prior_pairs, arrays),
        "covariance": _pack_covariance(fitted.covariance, arrays),
    }


def unpack_pairs(
    facts: Mapping[str, Any], arrays: Arrays, scale: Array, dtype: str
) -> KnownByPairs:
    """What is known from the pairs of an artifact.

    Args:
        facts: of the artifact.
        arrays: likewise.
        scale: of the prior's metric `[P]`.
        dtype: the network's precision.
    """
    if facts["vectors_dtype"] is not None:
        for name in arrays.keys() & {VECTORS, _OWN_VECTORS}:
            arrays[name] = restored(arrays[name], dtype)
    return KnownByPairs(
        _unpack_pairs(facts["pairs"], arrays),
        _unpack_covariance(facts["covariance"], arrays, scale),
    )


def _pack_pairs(pairs: Eigenpairs, arrays: Arrays) -> dict[str, Any]:
    arrays["eigenpairs/values"] = pairs.values
    arrays["eigenpairs/residual_norms"] = pairs.residual_norms
    names = ("trace", "smallest", "products", "converged", "n_lowest")
    left_out = None if pairs.left_out is None else asdict(pairs.left_out)
    tail = None if pairs.tail is None else asdict(pairs.tail)
    return {name: getattr(pairs, name) for name in names} | {"left_out": left_out, "tail": tail}


def _unpack_pairs(facts: dict[str, Any], arrays: Arrays) -> Eigenpairs:
    left_out, tail = facts.pop("left_out"), facts.pop("tail", None)  # which earlier files had not
    return Eigenpairs(
        values=arrays["eigenpairs/values"],
        vectors=arrays[VECTORS],
        residual_norms=arrays["eigenpairs/residual_norms"],
        left_out=None if left_out is None else NormBound(**left_out),
        tail=None if tail is None else MeasuredTail(**tail | {"shares": tuple(tail["shares"])}),
        **facts,
    )


def _pack_covariance(covariance: ParameterCovariance, arrays: Arrays) -> dict[str, Any]:
    spectra = {"middle": covariance.spectrum}
    if covariance.bounds is not None:
        spectra["low"], spectra["high"] = covariance.bounds
    for name, spectrum in spectra.items():
        arrays[f"covariance/{name}"] = spectrum.weights
    return {
        "tails": {name: spectrum.tail for name, spectrum in spectra.items()},
        "n_examples": covariance.n_examples,
        "certified": covariance.certified,
        "by_share": None if covariance.by_share is None else asdict(covariance.by_share),
        "noise": None if covariance.noise is None else _noise_facts(covariance.noise),
    }


def _noise_facts(noise: NoiseRange) -> dict[str, Any]:
    """The range of a noise as an artifact keeps it: JSON has no infinity, None stands for it."""
    return asdict(noise) | {"high": noise.high if np.isfinite(noise.high) else None}


def _noise_of(facts: Mapping[str, Any] | None) -> NoiseRange | None:
    if facts is None:
        return None
    return NoiseRange(**dict(facts) | {"high": np.inf if facts["high"] is None else facts["high"]})


def _by_share_of(facts: Mapping[str, Any] | None) -> TailByShare | None:
    if facts is None:
        return None
    return TailByShare(**dict(facts) | {"shares": tuple(facts["shares"])})


def _unpack_covariance(
    facts: Mapping[str, Any], arrays: Arrays, scale: Array
) -> ParameterCovariance:
    spectra = {
        name: LowRank(arrays[f"covariance/{name}"], tail) for name, tail in facts["tails"].items()
    }
    return ParameterCovariance(
        arrays.get(_OWN_VECTORS, arrays[VECTORS]),
        spectra["middle"],
        scale,
        facts["n_examples"],
        (spectra["low"], spectra["high"]) if "low" in spectra else None,
        facts["certified"],
        _noise_of(facts.get("noise")),
        _by_share_of(facts.get("by_share")),
    )
