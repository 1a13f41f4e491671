"""Exact checkpoints: the same bits back, or an error that says what to do."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cryotk
from cryotk.errors import CheckpointError, DataWarning
from cryotk.execution import checkpoint


def same(a, b):
    """Equal to the bit, types included."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        if a.dtype.kind in "US":
            a = a.astype(object)
        if a.dtype == object:
            return a.tolist() == b.tolist()
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return type(b) is float and a.hex() == b.hex()
    return type(a) is type(b) and a == b


STATE = {
    "model": {"maps": np.random.default_rng(0).normal(size=(2, 8, 8)), "complex": np.array([1 + 2j, np.nan], np.complex64)},
    "counts": np.arange(5),
    "flags": np.array([True, False]),
    "names": np.array(["mic 1", "µ", ""], object),
    "empty": np.zeros((0, 3), np.float32),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "nothing": None,
    "text": "a\nb ∞",
    "numbers": [0.1 + 0.2, float("inf"), -0.0, 10**30, True, 5e-324],
    "pair": (1, "x"),
    "rng": np.random.default_rng(5).bit_generator.state,
}


def test_the_same_bits_come_back(tmp_path):
    checkpoint.save(tmp_path / "a.checkpoint", STATE, "test")
    assert same(STATE, checkpoint.load(tmp_path / "a.checkpoint", "test"))


@given(
    st.dictionaries(st.text(max_size=5), st.one_of(
        st.floats(), st.integers(), st.text(max_size=10), st.none(), st.booleans(),
        hnp.arrays(st.sampled_from([np.float64, np.float32, np.int32, np.complex128, bool]), hnp.array_shapes(min_dims=0, min_side=0)),
        st.lists(st.floats(), max_size=3),
    ), max_size=5)
)  # fmt: skip
def test_any_state_comes_back(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("any") / "a.checkpoint"
    checkpoint.save(path, state, "test")
    assert same({k: v if not isinstance(v, float) or v == v else float("nan") for k, v in state.items()},
                checkpoint.load(path, "test"))  # fmt: skip


def test_a_random_generator_goes_on_where_it_was(tmp_path):
    rng = np.random.default_rng(11)
    rng.normal(size=7)
    checkpoint.save(tmp_path / "a.checkpoint", {"rng": rng.bit_generator.state}, "test")
    again = np.random.default_rng()
    again.bit_generator.state = checkpoint.load(tmp_path / "a.checkpoint", "test")["rng"]
    assert np.array_equal(rng.normal(size=9), again.normal(size=9))


def test_the_arrays_can_be_changed_and_outlive_the_file(tmp_path):
    path = tmp_path / "a.checkpoint"
    checkpoint.save(path, {"x": np.zeros(3)}, "test")
    x = checkpoint.load(path, "test")["x"]
    path.unlink()
    x[0] = 1
    assert x.tolist() == [1, 0, 0]


@pytest.mark.parametrize("bad", [{"f": print}, {"a": {"b": [object()]}}, {3: 1}, {"o": np.array([{}], object)}])
def test_what_cannot_be_stored_is_said_and_nothing_is_written(tmp_path, bad):
    path = tmp_path / "a.checkpoint"
    checkpoint.save(path, {"x": 1}, "test")
    with pytest.raises(CheckpointError, match="cannot store"):
        checkpoint.save(path, bad, "test")
    assert checkpoint.load(path, "test") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.checkpoint"]


def test_any_flipped_byte_of_the_data_is_found(tmp_path):
    path = tmp_path / "a.checkpoint"
    checkpoint.save(path, STATE, "test")
    raw = path.read_bytes()
    for position in np.linspace(0, len(raw) - 1, 97).astype(int):
        broken = bytearray(raw)
        broken[position] ^= 0x41
        path.write_bytes(bytes(broken))
        try:
            state = checkpoint.load(path, "test")
        except CheckpointError as error:
            assert "resume from" in str(error) or "format" in str(error) or "not of" in str(error)
        else:
            # names of members and padding in the archive may change without harm: then the state is whole
            assert same(STATE, state)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_file_cut_short_is_found(tmp_path, part):
    path = tmp_path / "a.checkpoint"
    checkpoint.save(path, STATE, "test")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(CheckpointError, match=r"a\.checkpoint is broken.*resume from the iteration before"):
        checkpoint.load(path, "test")


def test_foreign_files_other_kinds_and_versions_are_named(tmp_path):
    path = tmp_path / "a.checkpoint"
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        checkpoint.load(path, "test")
    checkpoint.save(path, {"x": 1}, "Class3D")
    with pytest.raises(CheckpointError, match="checkpoint of Class3D, not of Class2D"):
        checkpoint.load(path, "Class2D")
    path.write_text("data_\n")
    with pytest.raises(CheckpointError, match="not a cryotk checkpoint"):
        checkpoint.load(path, "test")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    with pytest.raises(CheckpointError, match="not a cryotk checkpoint"):
        checkpoint.load(tmp_path / "b.npz", "test")
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("state.json", json.dumps({"cryotk": 99, "kind": "test"}))
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoint.load(path, "test")


def test_latest_goes_by_iteration_number_not_by_name(tmp_path):
    for n in (1, 9, 999, 1000, 20):
        checkpoint.save(tmp_path / f"run_it{n:03d}.checkpoint", {"n": n}, "test")
    assert checkpoint.latest(tmp_path).name == "run_it1000.checkpoint"
    assert [checkpoint.load(p, "test")["n"] for p in checkpoint.checkpoints(tmp_path)] == [1, 9, 20, 999, 1000]


def test_latest_passes_over_a_broken_one_and_says_so(tmp_path):
    for n in (1, 2, 3):
        checkpoint.save(tmp_path / f"run_it{n:03d}.checkpoint", {"n": n}, "test")
    (tmp_path / "run_it003.checkpoint").write_bytes(b"PK half")
    with pytest.warns(DataWarning, match="going on from run_it002"):
        assert checkpoint.latest(tmp_path, "test").name == "run_it002.checkpoint"
    with pytest.raises(CheckpointError, match="none of its 3 checkpoints"):
        checkpoint.latest(tmp_path, "another")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.latest(tmp_path / "nowhere")


KILLED = """
import sys
import numpy as np
from cryotk.execution import checkpoint
n = 0
while True:
    checkpoint.save(sys.argv[1], {"n": n, "x": np.full(300_000, float(n))}, "test")
    n += 1
    print(n, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_writer_killed_at_any_time_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.checkpoint"
    env = os.environ | {"PYTHONPATH": str(Path(cryotk.__file__).parents[1])}
    for wait in (0.0, 0.011, 0.023, 0.037):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, env=env)
        writer.stdout.readline()
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        state = checkpoint.load(path, "test")
        assert (state["x"] == state["n"]).all()
