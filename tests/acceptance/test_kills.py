"""A fit that is killed at any moment goes on from its checkpoint, and comes to the same numbers."""

from __future__ import annotations

import os
import re
import shutil
import time

import numpy as np
import pytest
from killed_fits import KINDS, Server
from marks import slow

from deltauq.runtime.sealed_files import seal_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")

#: What nested tapes may change from run to run; nothing else changes a bit.
TOLERANCE = {"hessian": 1e-6, "sandwich": 1e-6}


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


def fit(server, kind, folder):
    """A fit that nobody disturbs, from the beginning or from where a checkpoint is."""
    assert server.wait(server.start(kind, folder)) == 0
    return np.load(folder / "std.npy")


def n_products(folder):
    return len((folder / "products").read_text().split())


def files_of(folder):
    """The files of a checkpoint that are in their places."""
    names = os.listdir(folder / "checkpoint") if (folder / "checkpoint").exists() else []
    return [folder / "checkpoint" / name for name in names if re.match("(fit|steps)", name)]


def kill(server, kind, folder, rng):
    """Kill a fit some steps after it went on; what is left in its directory proves whole."""
    process = server.start(kind, folder)
    enough, begun = len(files_of(folder)) + rng.integers(0, 5), time.monotonic()
    while len(files_of(folder)) < enough and time.monotonic() < begun + 60:
        if (folder / "done").exists():
            break
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.05))
    server.kill(process)
    assert all(seal_of(path).holds for path in files_of(folder))


@pytest.mark.parametrize("n_kills", [3, slow(20)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_fit_goes_on(server, tmp_path, kind, n_kills):
    """And of its products with the curvature one a kill at most is computed twice."""
    undisturbed, folder, rng = tmp_path / "one", tmp_path / "killed", np.random.default_rng(n_kills)
    undisturbed.mkdir()
    folder.mkdir()
    expected, once = fit(server, kind, undisturbed), n_products(undisturbed)
    tolerance = TOLERANCE.get(kind, 0.0)
    kills = before = 0
    while kills < n_kills:
        kill(server, kind, folder, rng)
        if (folder / "done").exists():  # too late: another fit has moments left
            before = kills
            shutil.rmtree(folder)
            folder.mkdir()
        else:
            kills += 1
    np.testing.assert_allclose(fit(server, kind, folder), expected, rtol=tolerance)
    assert once <= n_products(folder) <= once + kills - before
    assert not files_of(folder)
