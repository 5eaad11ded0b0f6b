"""A solver is one registered function, for which an operator asks by its name."""

from __future__ import annotations

import numpy as np
import pytest

from deltauq import DeltaMethod
from deltauq.curvature import CURVATURES, GGN, CurvatureKind, register
from deltauq.curvature.eigenpairs import eigenpairs
from deltauq.curvature.solver_kinds import SOLVERS, register_solver
from deltauq.curvature.solvers import solver_columns
from deltauq.errors import InvalidInputError
from deltauq.linalg import Eigenpairs, NormBound
from deltauq.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


#: The ends that solvers were made for.
ASKED: list[str] = []


class Dense:
    """All eigenpairs of the dense matrix, the first of which are kept."""

    def __init__(self, operator, ends):
        self.operator, self.ends = operator, ends
        ASKED.append(ends)

    def solve(self, rank):
        matrix = self.operator.to_dense()
        values, vectors = np.linalg.eigh(matrix)
        self.next = float(values[-rank - 1])
        return Eigenpairs(
            values=values[::-1][:rank],
            vectors=np.ascontiguousarray(vectors[:, ::-1][:, :rank]),
            residual_norms=np.zeros(rank),
            trace=float(np.trace(matrix)),
            smallest=None,
            products=len(matrix),
            converged=True,
        )

    def certified(self, pairs, step=None, unit=1.0):
        bound = NormBound(self.next, self.next, 0.0, 0)
        return Eigenpairs(**(vars(pairs) | {"left_out": bound}))


@pytest.fixture
def dense():
    @register_solver("dense", columns=lambda rank, n_params: 3 * n_params)
    def make(operator, *, ends, **options):
        assert set(options) == {"fresh", "dtype", "seed", "storage"}
        return Dense(operator, ends)

    class ByDense(GGN):
        solver = "dense"

    register(CurvatureKind("by_dense", ByDense))
    yield ByDense
    del SOLVERS["dense"], CURVATURES["by_dense"]


def test_an_operator_is_solved_by_the_solver_it_asks_for(get_case, dense):
    case = get_case("tanh")
    operator = dense(Network(case.model), "categorical", case.batches())
    ASKED.clear()
    pairs = eigenpairs(operator, 5, bounds=True)
    truth = np.linalg.eigvalsh(case.truth.ggn)[::-1]
    np.testing.assert_allclose(pairs.values, truth[:5], rtol=1e-10)
    assert pairs.left_out.bound == pytest.approx(truth[5], rel=1e-9)
    assert ASKED == ["largest"]
    assert solver_columns(dense, 5, 100) == 300
    with pytest.raises(InvalidInputError, match="ends='both' needs a solver"):
        eigenpairs(operator, 5, ends="both")


def test_a_fit_goes_through_it_and_agrees_with_the_sketch(get_case, dense):
    case = get_case("tanh")
    options = {"rank": 20, "l2": 0.05, "progress": False, "bounds": True}
    ASKED.clear()
    found, expected = (
        DeltaMethod(case.model, name, **options).fit(case.x, case.y) for name in ("by_dense", "ggn")
    )
    assert ASKED == ["largest"]
    np.testing.assert_allclose(found.eigenpairs.values, expected.eigenpairs.values, rtol=1e-3)
    low, high = found.predict(case.x).std_bounds
    assert np.all(low <= expected.predict(case.x).std * (1 + 1e-6))
    assert np.all(expected.predict(case.x).std <= high * (1 + 1e-6))
