"""An exported SavedModel predicts what `predict` does, in a process without deltauq."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import saved_kinds as saving
import tensorflow as tf
from marks import asked_for, wide_but

from deltauq import DeltaMethod
from deltauq.errors import InvalidInputError, NotFittedError

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far"),
    pytest.mark.filterwarnings("ignore:the 8 eigenpairs"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]

#: What plain TensorFlow does with an export. An import of deltauq would fail.
_SERVE = textwrap.dedent("""
    import pickle, sys
    sys.modules["deltauq"] = sys.modules["keras"] = None
    import numpy as np
    import tensorflow as tf
    for name, x in pickle.load(open(sys.argv[1], "rb")).items():
        served = tf.saved_model.load(f"{sys.argv[2]}/{name}").signatures
        for signature in ("serving_default", "mean"):
            found = served[signature](**{key: tf.constant(leaf) for key, leaf in x.items()})
            np.savez(f"{sys.argv[2]}/{name}.{signature}.npz", **found)
""")


#: Every kind of outcome, of bounds and of inputs.
CASES = {name: case for name, case in saving.CASES.items() if name not in ("smoothed", "hessian")}


#: Cases of `make test`.
SHOWN = ["regression", "words and numbers"]


@pytest.fixture(scope="module")
def served(request, tmp_path_factory):
    """Every case that is asked for: fitted, exported, and served by TensorFlow alone."""
    import pickle

    directory = tmp_path_factory.mktemp("exports")
    methods, inputs = {}, {}
    for name in asked_for(request, "name"):
        methods[name], x, _ = saving.fit(CASES[name])
        methods[name].export(directory / name, level=0.9)
        x = inputs[name] = saving.first(x)
        inputs[name] = x
    named = {name: x if isinstance(x, dict) else {"x": x} for name, x in inputs.items()}
    (directory / "inputs").write_bytes(pickle.dumps(named))
    subprocess.run(
        [sys.executable, "-c", _SERVE, str(directory / "inputs"), str(directory)],
        check=True,
        capture_output=True,
        cwd=directory,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    return directory, methods, inputs


@pytest.mark.parametrize("name", wide_but(SHOWN, CASES))
def test_a_process_without_deltauq_predicts_the_same(served, name):
    directory, methods, inputs = served
    expected = methods[name].predict(inputs[name])
    with np.load(directory / f"{name}.serving_default.npz") as found:
        mean = "mean" if name in ("regression", "counts") else "probabilities"
        close = {"rtol": 2e-5, "atol": 1e-6}
        np.testing.assert_allclose(found[mean], expected.mean, **close)
        np.testing.assert_allclose(found["std"], expected.std, **close)
        np.testing.assert_allclose(found["score"], expected.score, **close)
        lower, upper = expected.interval(0.9)
        np.testing.assert_allclose(found["lower"], lower, **close)
        np.testing.assert_allclose(found["upper"], upper, **close)
        if mean == "probabilities":
            averaged = expected.predictive("probit").probabilities
            np.testing.assert_allclose(found["predictive"], averaged, **close)
        else:
            assert "predictive" not in found
        if expected.std_limits is None:
            assert "std_low" not in found
        else:
            np.testing.assert_allclose(found["std_low"], expected.std_bounds[0], **close)
            np.testing.assert_allclose(found["std_high"], expected.std_bounds[1], **close)
        if name == "regression":
            lower, upper = expected.interval(0.9, of="observation")
            np.testing.assert_allclose(found["observation_lower"], lower, **close)
            np.testing.assert_allclose(found["observation_upper"], upper, **close)
        if name == "counts":  # whose quantiles take SciPy
            np.testing.assert_allclose(found["observation_std"], expected.observation_std, **close)
            assert "observation_lower" not in found
    with np.load(directory / f"{name}.mean.npz") as found:
        assert found.files == [mean]
        np.testing.assert_allclose(found[mean], expected.mean, **close)


@pytest.mark.wide  # in float32: the tests before
def test_in_float64_to_rounding(tmp_path, get_case):
    case = get_case("relu_conv")
    method = DeltaMethod(case.model, "ggn", rank=10, l2=0.1, likelihood="categorical")
    method.fit(case.x, case.y, case.weight).export(tmp_path / "m", batch_size=2)
    served = tf.saved_model.load(tmp_path / "m").signatures["serving_default"]
    found, expected = served(x=tf.constant(case.x[:2])), method.predict(case.x[:2])
    np.testing.assert_allclose(found["std"], expected.std, rtol=1e-9)
    np.testing.assert_allclose(found["std_low"], expected.std_bounds[0], rtol=1e-9)
    assert served.structured_input_signature[1]["x"].shape == (2, *case.x.shape[1:])


def test_nothing_large_is_a_constant(tmp_path):
    """Constants of 1.9 GB take 16 GiB, and beyond 2 GB they fail."""
    method, *_ = saving.fit(saving.batch_norm)
    method.export(tmp_path / "m")
    loaded = tf.saved_model.load(tmp_path / "m")
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    sizes = [
        np.prod([dim.size for dim in node.attr["value"].tensor.tensor_shape.dim], dtype=int)
        for node in nodes
        if node.op == "Const"
    ]
    assert max(sizes) <= 16


def test_bad_calls_say_what_to_do(tmp_path):
    method, *_ = saving.fit(saving.softmax)
    with pytest.raises(NotFittedError, match="export needs the curvature"):
        DeltaMethod(method.model).export(tmp_path / "m")
    (tmp_path / "there").mkdir()
    with pytest.raises(InvalidInputError, match="exists already"):
        method.export(tmp_path / "there")
    with pytest.raises(InvalidInputError, match="directory above the export does not exist"):
        method.export(tmp_path / "no" / "m")
    with pytest.raises(InvalidInputError, match="level is not between 0 and 1"):
        method.export(tmp_path / "m", level=95)
    with pytest.raises(InvalidInputError, match="batch_size"):
        method.export(tmp_path / "m", batch_size=0)
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
