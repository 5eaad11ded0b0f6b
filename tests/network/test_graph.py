"""Copies of a part of a graph are what tracing it again gives, and traces say what they read."""

import numpy as np
import pytest
import tensorflow as tf

from deltauq.network.graph import Staged, copies, read_trace, traced, traced_and_read

VALUES = np.array([[0.5, 1.0], [1.5, -2.0], [0.1, 3.0]], np.float32)


def looped(x, beside):
    """x^8 times a tensor from outside, by a loop."""
    return tf.while_loop(lambda k, _: k < 3, lambda k, z: (k + 1, z * z), (0, x))[1] * beside


def of_copies(x):
    source = tf.identity(x[0])
    beside = tf.exp(x[2])
    result = looped(source, beside)
    results = [result, tf.gradients(result, source)[0], beside, source]
    return [results, *copies(results, source, [x[1], x[2]])]


@pytest.mark.quick
def test_copies_are_what_tracing_again_gives():
    for value, found in zip(VALUES, traced(of_copies, VALUES)(tf.constant(VALUES)), strict=True):
        beside = np.exp(VALUES[2])
        expected = [value**8 * beside, 8 * value**7 * beside, beside, value]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_only_what_depends_on_the_source_is_copied():
    def trace(x):
        results, *others = of_copies(x)
        for copied in others:
            assert copied[2] is results[2]
            assert copied[0] is not results[0]
            assert copied[0].shape == results[0].shape
        return results

    traced(trace, VALUES)


def test_of_no_values_there_are_no_copies():
    def trace(x):
        source = tf.identity(x[0])
        assert not list(copies([tf.exp(source)], source, []))
        return source

    traced(trace, VALUES)


def test_what_a_trace_reads_comes_back_beside_what_it_computes():
    """Of any type, and of each trace its own."""

    def function(x):
        return 2 * x, (x.shape[0], [op.type for op in (x + x).graph.get_operations()])

    double, (n_rows, kinds) = traced_and_read(function, tf.TensorSpec([3], tf.float32))
    np.testing.assert_array_equal(double(tf.ones(3)), [2.0, 2.0, 2.0])
    assert n_rows == 3
    assert "AddV2" in kinds
    assert read_trace(lambda x: x.shape[0], tf.TensorSpec([7], tf.float32)) == 7
    assert read_trace(lambda x: None, tf.TensorSpec([7], tf.float32)) is None


def test_a_stage_holds_what_it_needs_and_nothing_of_the_other():
    """The first stage has no placeholder for what only the second is given."""
    spec, kinds = tf.TensorSpec([2], tf.float32), ["Exp", "Sinh"]

    def function(x, scale, last):
        return tf.sinh(last) * tf.exp(x) * scale + looped(x, scale)

    staged = Staged(function, spec, spec, spec)
    x, scale, last = (tf.constant(values) for values in VALUES)
    point = staged.first(x, scale)
    found = staged.second(point, tf.stack([last, 2 * last]))
    for row, value in zip(found, (last, 2 * last), strict=True):
        np.testing.assert_allclose(row, function(x, scale, value), rtol=1e-6)
    first, second = (
        [operation.type for operation in compiled.concrete.graph.get_operations()]
        for compiled in (staged._first, staged._second[2])
    )
    assert [kind in first for kind in kinds] == [True, False]
    assert [kind in second for kind in kinds] == [False, True]
    assert (first.count("Placeholder"), second.count("Placeholder")) == (2, len(point) + 1)


def test_over_many_points_the_second_stage_is_compiled_once():
    """It is called for each of them, and not copied into the caller."""
    spec = tf.TensorSpec([2], tf.float32)
    staged = Staged(lambda x, last: tf.sinh(last) * tf.exp(x), spec, spec)
    points = [staged.first(tf.constant(values)) for values in VALUES]
    total = staged.over(points)
    graph = traced(total, tf.TensorSpec([1, 2], tf.float32)).graph.as_graph_def()
    second = [f for f in graph.library.function if any(n.op == "Sinh" for n in f.node_def)]
    assert [f.attr["_noinline"].b for f in second] == [True]
    found = total(tf.constant(VALUES[:1]))
    np.testing.assert_allclose(found[0], np.sinh(VALUES[0]) * np.exp(VALUES).sum(axis=0), rtol=1e-6)
