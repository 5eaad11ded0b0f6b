"""An artifact's file is whole or refused: no damage loads, no interrupted save loses anything."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from deltauq.delta.files import artifact
from deltauq.errors import ArtifactError
from deltauq.runtime import sealed_files

FACTS = {"name": "a study", "rates": [0.1, 1e-300, np.float32(0.5)], "none": None}


@pytest.fixture
def written(tmp_path, rng):
    path = tmp_path / "a.deltauq"
    arrays = {"vectors": rng.normal(size=(50, 7)).astype(np.float32), "empty": np.ones((3, 0))}
    artifact.write(path, arrays, FACTS)
    return path, arrays


def test_arrays_and_facts_come_back_to_the_bit(written):
    path, arrays = written
    found, facts = artifact.read(path)
    assert facts == {"name": "a study", "rates": [0.1, 1e-300, 0.5], "none": None}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_any_reader_of_safetensors_opens_it(written):
    from safetensors.numpy import load_file

    path, arrays = written
    np.testing.assert_array_equal(load_file(path)["vectors"], arrays["vectors"])


def test_nothing_else_is_left_and_the_mode_is_the_users(written):
    path, _ = written
    assert [p.name for p in path.parent.iterdir()] == ["a.deltauq"]
    ordinary = path.with_name("ordinary")
    ordinary.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def _damaged(content, rng):
    """One of the things that happen to files."""
    kind = rng.integers(6)
    size, place = len(content), int(rng.integers(len(content)))
    if kind == 0:  # a bit flips
        return (
            content[:place] + bytes([content[place] ^ 1 << rng.integers(8)]) + content[place + 1 :]
        )
    if kind == 1:  # a byte becomes another
        other = (content[place] + int(rng.integers(1, 256))) % 256
        return content[:place] + bytes([other]) + content[place + 1 :]
    if kind == 2:  # the copy stopped
        return content[:place]
    if kind == 3:  # something was appended, or inserted
        return content[:place] + rng.bytes(int(rng.integers(1, 9))) + content[place:]
    if kind == 4:  # a block was lost
        end = min(size, place + int(rng.integers(1, 64)))
        return content[:place] + content[end:]
    end = min(size, place + 16)  # a block was not written
    return content[:place] + bytes(end - place) + content[end:]


def test_two_hundred_random_damages_are_all_refused(written, rng):
    path, _ = written
    whole, refused = path.read_bytes(), 0
    while refused < 200:
        content = _damaged(whole, rng)
        if content == whole:
            continue
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"damaged|no artifact"):
            artifact.read(path)
        refused += 1


@pytest.mark.parametrize("where", ["name", "sha256", "format"])
def test_tampering_with_the_header_is_seen(written, where):
    path, _ = written
    content = path.read_bytes()
    place = content.index({"name": b"a study", "sha256": b"sha256", "format": b"format"}[where])
    path.write_bytes(content[:place] + b"X" + content[place + 1 :])
    with pytest.raises(ArtifactError, match=r"damaged|no artifact"):
        artifact.read(path)


def test_a_newer_layout_is_refused(written, monkeypatch):
    path, arrays = written
    own = artifact.FORMAT
    monkeypatch.setattr(artifact, "FORMAT", own + 1)
    artifact.write(path, arrays, FACTS)
    monkeypatch.undo()
    match = rf"newer deltauq.*format {own} or older.*format {own + 1}.*upgrade"
    with pytest.raises(ArtifactError, match=match):
        artifact.read(path)


def test_what_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        artifact.read(tmp_path / "nothing")
    for content in (b"", b"text", b"\xff" * 100, bytes(1000)):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(ArtifactError, match="no artifact"):
            artifact.read(tmp_path / "other")
    with pytest.raises(ArtifactError, match="directory of the artifact does not exist"):
        artifact.write(tmp_path / "no" / "a", {}, {})


def test_a_failure_while_writing_leaves_the_old_file(written, monkeypatch):
    path, _ = written
    before = path.read_bytes()
    monkeypatch.setattr(sealed_files, "_digest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        artifact.write(path, {"a": np.zeros(3)}, {})
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


_WRITER = """
import sys, pathlib, itertools, numpy as np
from deltauq.delta.files import artifact
path = pathlib.Path(sys.argv[1])
for k in itertools.count():
    artifact.write(path, {"a": np.full(3_000_000, k)}, {"k": k})
    print(k, flush=True)
"""


def test_a_process_killed_while_saving_leaves_a_whole_file(tmp_path, rng):
    path = tmp_path / "a.deltauq"
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:
            process.stdout.readline()  # it writes now
            time.sleep(rng.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
        arrays, facts = artifact.read(path)
        assert np.all(arrays["a"] == facts["k"])
