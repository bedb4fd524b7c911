"""Opening an artifact: other readers can read it, views cost nothing, and damage is found and named."""

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from rockledge.artifact import Artifact, open_artifact
from rockledge.errors import ArtifactError
from rockledge.formats.packing import unpack
from rockledge.synth import SHAPES, synth_artifact, synth_checkpoint


@pytest.fixture
def toy(tmp_path):
    return synth_artifact("toy", tmp_path / "toy")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """An artifact that property tests overwrite, and its tensor file as it was."""
    path = synth_artifact("toy", tmp_path_factory.mktemp("damaged") / "toy")
    return path, (path / "model.safetensors").read_bytes()


def rewritten(path, change):
    """Changes the description in a tensor file and makes its header checksum right again."""
    file = path / "model.safetensors"
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    described = json.loads(header["__metadata__"]["rockledge"])
    change(described, header)
    if described is not None:
        header["__metadata__"]["rockledge"] = json.dumps(described)
    header["__metadata__"]["rockledge_header_sha256"] = "0" * 64
    text = json.dumps(header).encode().ljust(length + 4096)
    digest = hashlib.sha256(text).hexdigest()
    text = text.replace(b"0" * 64, digest.encode())
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def test_the_official_library_reads_the_same_bytes(toy):
    artifact = open_artifact(toy)
    theirs = load_file(toy / "model.safetensors")
    for name in artifact.linears:
        packed = artifact.linear(name)
        assert (theirs[f"{name}.codes"] == packed.codes).all()
        assert (theirs[f"{name}.scale"][: packed.rows] == packed.scale).all()
        if packed.index.size:
            assert (theirs[f"{name}.index"] == packed.index).all()
            assert (theirs[f"{name}.tables"] == packed.tables.reshape(-1)).all()
    assert (theirs["rotation.mix"][:9] == artifact.rotation.mix.reshape(-1)).all()
    with safetensors.safe_open(toy / "model.safetensors", "np") as file:
        assert json.loads(file.metadata()["rockledge"])["version"] == 1


def test_data_lie_on_pages_and_tensors_on_lines(toy):
    raw = (toy / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__")
    assert (8 + length) % 4096 == 0
    assert all(offset % 64 == 0 for entry in header.values() for offset in entry["data_offsets"])
    packed = open_artifact(toy).linear("layers.0.attn.q")
    for array in (packed.codes, packed.index, packed.tables, packed.scale):
        assert array.ctypes.data % 64 == 0
        assert not array.flags.writeable
        assert not array.flags.owndata


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no huge pages here")
def test_the_mapping_asks_for_huge_pages(toy):
    artifact = open_artifact(toy)
    artifact.verify()
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if str(toy / "model.safetensors") in line)
    flags = next(line for line in lines[start:] if line.startswith("VmFlags:"))
    assert "hg" in flags.split()


def test_what_was_written_is_known_again(toy):
    artifact = open_artifact(toy)
    assert artifact.config == SHAPES["toy"]
    assert artifact.rotation.width == 96
    assert artifact.online == {"ffn.down": 16}
    assert artifact.planes("embed") == 1
    assert artifact.array("final_norm").shape == (96,)
    assert artifact.bits_per_weight == 8 * artifact.tensor_bytes / artifact.parameters
    assert set(artifact.files) == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    }
    assert artifact.report is None
    assert "seed: 0" in artifact.recipe
    for unknown in (artifact.linear, artifact.array):
        with pytest.raises(ArtifactError, match="'nothing'"):
            unknown("nothing")


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_is_named(toy, seed):
    artifact = open_artifact(toy)
    random = np.random.default_rng(seed)
    name = str(random.choice(sorted(artifact.linears)))
    target = f"{name}.{random.choice(['codes', 'scale'])}"
    raw = bytearray((toy / "model.safetensors").read_bytes())
    length = struct.unpack("<Q", raw[:8])[0]
    begin, end = json.loads(bytes(raw[8 : 8 + length]))[target]["data_offsets"]
    raw[8 + length + int(random.integers(begin, end))] ^= 1 << int(random.integers(8))
    (toy / "model.safetensors").write_bytes(raw)
    seen = []
    with pytest.raises(ArtifactError, match=f"checksum of {target} is wrong"):
        open_artifact(toy).verify(seen.append)
    assert sum(seen) == artifact.tensor_bytes


def test_a_flipped_bit_in_a_small_file_is_named(toy):
    raw = bytearray((toy / "tokenizer.json").read_bytes())
    raw[100] ^= 1
    (toy / "tokenizer.json").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"checksum of tokenizer\.json"):
        open_artifact(toy).verify()


def test_a_changed_config_is_refused_at_once(toy):
    text = (toy / "config.json").read_text()
    (toy / "config.json").write_text(text.replace('"hidden_size": 96', '"hidden_size": 97'))
    with pytest.raises(ArtifactError, match=r"config\.json has changed since it was written"):
        open_artifact(toy)


def test_a_newer_version_says_to_update(toy):
    rewritten(toy, lambda described, _: described.update(version=2))
    with pytest.raises(ArtifactError, match=r"version 2.*at most 1.*update"):
        open_artifact(toy)


@pytest.mark.parametrize("version", [None, 0, -1, True, "1", 1.5, [], {}])
def test_an_impossible_version_is_refused(toy, version):
    rewritten(toy, lambda described, _: described.update(version=version))
    with pytest.raises(ArtifactError, match="version"):
        open_artifact(toy)


@given(cut=st.integers(0, 1 << 20))
def test_a_truncated_file_is_refused_at_once(damaged, cut):
    path, raw = damaged
    (path / "model.safetensors").write_bytes(raw[: cut % len(raw)])
    with pytest.raises(ArtifactError):
        open_artifact(path)


@given(st.integers(0, 1 << 20), st.integers(0, 7))
@settings(max_examples=150)
def test_a_flipped_bit_in_the_header_is_refused_at_once(damaged, position, bit):
    path, raw = damaged
    changed = bytearray(raw)
    changed[position % (8 + struct.unpack("<Q", raw[:8])[0])] ^= 1 << bit
    (path / "model.safetensors").write_bytes(changed)
    with pytest.raises(ArtifactError):
        open_artifact(path)


wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["U8", "F32", "BF16", [0, 64], [64, 0], [2**63, 2**64], [[0, 8, 4]], {"block": 3, "odd": 32}]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@given(st.data())
@settings(max_examples=300)
def test_hostile_descriptions_raise_nothing_but_artifact_errors(damaged, data):
    """With a right checksum: whoever writes the file can compute it."""
    path, raw = damaged
    (path / "model.safetensors").write_bytes(raw)
    value = data.draw(wild)
    in_header = data.draw(st.booleans())

    def change(described, header):
        table = header if in_header else described
        where = data.draw(
            st.sampled_from([place for place in places(table) if place and place[0] != "__metadata__"])
        )
        for key in where[:-1]:
            table = table[key]
        table[where[-1]] = value

    rewritten(path, change)
    try:
        artifact = open_artifact(path)
        for name in artifact.linears:
            unpack(artifact.linear(name))
        artifact.verify()
    except ArtifactError:
        pass


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1) | st.none())
def test_any_bytes_raise_nothing_but_artifact_errors(damaged, body, length):
    path, _ = damaged
    announced = len(body) if length is None else length
    (path / "model.safetensors").write_bytes(struct.pack("<Q", announced) + body)
    with pytest.raises(ArtifactError):
        open_artifact(path)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":1,"a":2}',
        b"[]",
        b"\xff\xfe",
        b'{"__metadata__": []}',
        b'{"__metadata__": {"rockledge": 3}}',
        b'{"__metadata__": {"rockledge": "[[["}}',
        b'{"x": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 0]}}',
        b'{"x": {"dtype": "U8", "shape": [true], "data_offsets": [0, 1]}}',
        b'{"x": ' + b"9" * 10_000 + b"}",
    ],
)
def test_known_traps_are_artifact_errors(damaged, text):
    path, _ = damaged
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0")
    with pytest.raises(ArtifactError):
        open_artifact(path)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(toy, missing):
    (toy / missing).unlink()
    with pytest.raises(ArtifactError, match=missing):
        open_artifact(toy)


def test_no_directory_and_a_checkpoint_are_told_apart(tmp_path):
    with pytest.raises(ArtifactError, match="is not a directory; give the one"):
        open_artifact(tmp_path / "nowhere")
    checkpoint = synth_checkpoint("toy", tmp_path / "checkpoint")
    with pytest.raises(ArtifactError, match="rockledge quantize"):
        open_artifact(checkpoint)


def test_a_report_that_is_not_json_is_an_artifact_error(toy):
    (toy / "report.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"report\.json"):
        _ = open_artifact(toy).report


@given(
    st.integers(0, 2**31),
    st.sampled_from([2, 3, 4, 8, None]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["llama", "qwen2", "qwen3"]),
    st.integers(1, 5),
)
@settings(max_examples=15)
def test_every_kind_of_artifact_opens_and_verifies(tmp_path_factory, seed, bits, rotate, tied, family, odd):
    config = replace(
        SHAPES["toy"],
        family=family,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tied=tied,
        hidden=8 * odd,
        ffn=24 * odd,
    )
    path = tmp_path_factory.mktemp("kind") / "artifact"
    artifact: Artifact = open_artifact(
        synth_artifact(config, path, bits=bits, rotate=rotate, two_planes=["ffn.down"], seed=seed)
    )
    artifact.verify()
    assert artifact.config == config
    assert (artifact.rotation is not None) == rotate
    assert artifact.planes("layers.0.ffn.down") == 2
    for name, spec in artifact.linears.items():
        assert unpack(artifact.linear(name)).shape == (spec.rows, spec.cols)
