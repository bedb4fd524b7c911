"""Writing an artifact: complete or not there, whatever happens on the way; the old one stays until then."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from rockledge.artifact import ArtifactPlan, ArtifactWriter, LinearSpec, open_artifact, packed_size
from rockledge.errors import ArtifactError
from rockledge.formats.bands import Band
from rockledge.formats.packing import unpack
from rockledge.synth import SHAPES, synth_artifact

Q = "layers.0.attn.q"


def copy_of(artifact, **changes):
    """The plan of an open artifact, with changes."""
    plan = ArtifactPlan(
        config=artifact.config,
        linears=artifact.linears,
        parameters=artifact.parameters,
        arrays=artifact.arrays,
        rotation=artifact.rotation,
        online=artifact.online,
        files={name: data for name, data in artifact.files.items() if name != "config.json"},
        recipe=artifact.recipe,
    )
    return replace(plan, **changes)


def write_all(writer, artifact):
    for name in artifact.linears:
        writer.linear(name, artifact.linear(name))
    for name in artifact.arrays:
        writer.array(name, artifact.array(name))


@pytest.fixture
def toy(tmp_path):
    return open_artifact(synth_artifact("toy", tmp_path / "toy"))


def test_a_copy_written_in_any_order_is_the_same(toy, tmp_path):
    target = tmp_path / "new" / "copy"
    with ArtifactWriter(target, copy_of(toy)) as writer:
        for name in reversed(toy.arrays):
            writer.array(name, toy.array(name))
        for name in sorted(toy.linears):
            writer.linear(name, toy.linear(name))
        writer.report({"kl_mean_nats": 0.25}, "# Report\n")
    copy = open_artifact(target)
    copy.verify()
    assert (target / "model.safetensors").read_bytes() == (toy.path / "model.safetensors").read_bytes()
    assert copy.files == toy.files
    assert copy.recipe == toy.recipe
    assert copy.report == {"kl_mean_nats": 0.25}
    assert (target / "report.md").read_text() == "# Report\n"
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["copy"]


def test_the_planned_size_is_the_written_size(toy):
    assert packed_size(copy_of(toy)) == toy.tensor_bytes


def test_an_error_leaves_nothing(toy, tmp_path):
    target = tmp_path / "gone"

    def fail():
        with ArtifactWriter(target, copy_of(toy)) as writer:
            writer.linear("embed", toy.linear("embed"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy"}


def test_leaving_something_out_is_an_error_and_leaves_nothing(toy, tmp_path):
    with pytest.raises(ArtifactError, match="not written"), ArtifactWriter(tmp_path / "part", copy_of(toy)):
        pass
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy"}


def test_an_old_artifact_stays_until_the_new_one_is_complete(toy, tmp_path):
    new = open_artifact(synth_artifact("toy", tmp_path / "other", seed=1))
    target = toy.path
    before = (target / "model.safetensors").read_bytes()
    with pytest.raises(ArtifactError, match="add --overwrite"), ArtifactWriter(target, copy_of(new)):
        pass
    with pytest.raises(ArtifactError), ArtifactWriter(target, copy_of(new), overwrite=True) as writer:
        writer.linear("embed", new.linear("embed"))
    assert (target / "model.safetensors").read_bytes() == before
    with ArtifactWriter(target, copy_of(new), overwrite=True) as writer:
        write_all(writer, new)
        assert (target / "model.safetensors").read_bytes() == before
        open_artifact(target).verify()
    assert (target / "model.safetensors").read_bytes() == (new.path / "model.safetensors").read_bytes()
    # What was mapped before is still there for whoever uses it.
    toy.verify()
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy", "other"}


def test_replacing_works_where_names_cannot_be_exchanged(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("rockledge.artifact.publish._exchange", lambda one, other: False)
    synth_artifact("toy", toy.path, seed=1, overwrite=True)
    open_artifact(toy.path).verify()
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy"}


@pytest.mark.parametrize("foreign", ["notes.txt", "model.safetensors"])
def test_a_directory_with_other_things_is_not_replaced(toy, tmp_path, foreign):
    if foreign == "notes.txt":
        (toy.path / foreign).write_text("mine")
        target = toy.path
    else:
        target = tmp_path / "checkpoint"
        target.mkdir()
        (target / foreign).write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ArtifactError, match="remove it yourself"):
        synth_artifact("toy", target, overwrite=True)
    assert (target / foreign).exists()


def test_an_empty_directory_is_used(tmp_path):
    (tmp_path / "empty").mkdir()
    open_artifact(synth_artifact("toy", tmp_path / "empty")).verify()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        synth_artifact("toy", tmp_path / "file" / "artifact")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    # A limit on the size of files fails the way a full disk does, but only for this child.
    code = (
        "import sys\nfrom rockledge.errors import ArtifactError\nfrom rockledge.synth import synth_artifact\n"
        "try:\n    synth_artifact('toy', sys.argv[1])\n"
        "except ArtifactError as error:\n    print(error)\n    sys.exit(7)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "toy")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert child.returncode == 7, child.stderr
    assert "no space is left" in child.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_late_is_said_and_leaves_nothing(toy, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def write():
        with ArtifactWriter(tmp_path / "late", copy_of(toy)) as writer:
            writer.linear("embed", toy.linear("embed"))
            monkeypatch.setattr(os, "pwrite", full)
            write_all(writer, toy)

    with pytest.raises(ArtifactError, match="no space is left"):
        write()
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy"}


def test_ctrl_c_while_writing_leaves_nothing(tmp_path):
    code = (
        "import sys, time\nimport rockledge.artifact.writer as writer\n"
        "from rockledge.synth import synth_artifact\n"
        "plain = writer.ArtifactWriter.linear\n"
        "def slow(self, name, packed):\n    plain(self, name, packed)\n    print(name, flush=True)\n"
        "    time.sleep(0.2)\n"
        "writer.ArtifactWriter.linear = slow\nsynth_artifact('toy', sys.argv[1])\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "toy")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    child.stdout.readline()
    assert not (tmp_path / "toy").exists()
    child.send_signal(signal.SIGINT)
    child.wait(timeout=60)
    child.stdout.close()
    assert child.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_cleared_but_not_what_a_living_one_writes(toy, tmp_path):
    old = time.time() - 3600
    with ArtifactWriter(tmp_path / "copy", copy_of(toy), overwrite=True) as living:
        (left,) = tmp_path.glob(".copy.partial-*")
        os.utime(left, (old, old))
        dead = tmp_path / ".copy.partial-1-00000000"
        dead.mkdir()
        (dead / "model.safetensors").write_bytes(b"half")
        os.utime(dead, (old, old))
        synth_artifact("toy", tmp_path / "copy", seed=2)
        assert not dead.exists()
        assert left.exists()
        write_all(living, toy)
    assert (unpack(open_artifact(tmp_path / "copy").linear("embed")) == unpack(toy.linear("embed"))).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda toy: {"config": replace(toy.config, layers=3)},
        lambda toy: {"config": replace(toy.config, ffn=224)},
        lambda toy: {"arrays": {}},
        lambda toy: {"online": {"ffn.down": 32}},
        lambda toy: {"rotation": replace(toy.rotation, odd=1)},
        lambda toy: {"linears": {**toy.linears, "extra": toy.linears["embed"]}},
        lambda toy: {"linears": {**toy.linears, "embed": replace(toy.linears["embed"], planes=3)}},
        lambda toy: {
            "linears": {**toy.linears, "layers.0.attn.q": replace(toy.linears["layers.0.attn.q"], planes=2)}
        },
        lambda toy: {"files": {"../escape": b""}},
        lambda toy: {"files": {"report.json": b""}},
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(toy, tmp_path, change):
    with pytest.raises(ArtifactError):
        ArtifactWriter(tmp_path / "never", copy_of(toy, **change(toy)))


def test_tensors_that_were_not_planned_so_are_refused(toy, tmp_path):
    embed = toy.linear("embed")
    wrong = [
        ("layers.9.attn.q", embed),
        ("embed", toy.linear("layers.0.attn.q")),
        ("embed", replace(embed, scale=np.ones(300))),
        ("embed", replace(embed, codes=np.zeros(64, np.uint8))),
    ]
    with ArtifactWriter(tmp_path / "copy", copy_of(toy)) as writer:
        for name, packed in wrong:
            with pytest.raises(ArtifactError, match=name):
                writer.linear(name, packed)
        with pytest.raises(ArtifactError, match="final_norm"):
            writer.array("final_norm", np.ones(97, np.float32))
        write_all(writer, toy)
    open_artifact(tmp_path / "copy").verify()


def test_eight_bits_everywhere_and_biases_are_stored(tmp_path):
    config = replace(SHAPES["toy"], family="qwen2", qkv_bias=True, tied=False)
    artifact = open_artifact(synth_artifact(config, tmp_path / "biased", bits=8, rotate=False))
    artifact.verify()
    q = artifact.linear("layers.1.attn.q")
    assert q.bias is not None
    assert q.bias.shape == (96,)
    assert artifact.linear("layers.1.attn.o").bias is None
    assert artifact.linears["head"] == LinearSpec(300, 96, (Band(0, 300, 8),))
    assert artifact.rotation is None
    assert artifact.arrays == {}
    described = json.loads(artifact.files["config.json"])
    assert described["architectures"] == ["Qwen2ForCausalLM"]


def is_cached(path):
    """Whether the file's last bytes can be read without its disk."""
    with open(path, "rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], path.stat().st_size - 1, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False
        except OSError:
            pytest.skip("this file system does not tell what is cached")


def test_nothing_of_it_stays_in_the_page_cache(tmp_path):
    other = tmp_path / "other"
    with open(other, "wb") as file:
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if is_cached(other):
        pytest.skip("this file system keeps its files in memory")
    tensors = synth_artifact("toy", tmp_path / "toy") / "model.safetensors"
    assert not is_cached(tensors)
    tensors.read_bytes()
    assert is_cached(tensors)
