"""The GGUF container: files of the gguf package are read alike, damaged ones are refused with the reason."""

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.model.damage import damaged, read_or_refuse

from rockledge.errors import CheckpointError
from rockledge.model.gguf_file import can_dequantise, open_gguf

RANDOM = np.random.default_rng(5)
# Types the package writes itself, and types it only reads (their random blocks keep exponents small).
WRITTEN = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1]
READ = [
    Kind.Q2_K,
    Kind.Q3_K,
    Kind.Q4_K,
    Kind.Q5_K,
    Kind.Q6_K,
    Kind.IQ4_NL,
    Kind.IQ4_XS,
    Kind.IQ2_XXS,
    Kind.IQ3_S,
]


def write(
    path: Path, tensors: dict[str, tuple[np.ndarray, Kind]], metadata: dict[str, Any] | None = None
) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("a.list", [1, 2, 3])
    writer.add_string("a.text", "grüße")
    writer.add_array("a.words", ["x", "", "zé"])
    writer.add_float64("a.real", 0.1)
    writer.add_bool("a.flag", True)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_become_plain_values(tmp_path: Path) -> None:
    file = open_gguf(write(tmp_path / "x.gguf", {"t": (np.ones((2, 3), np.float32), Kind.F32)}))
    assert file.metadata == {
        "general.architecture": "llama", "a.list": [1, 2, 3], "a.text": "grüße", "a.words": ["x", "", "zé"],
        "a.real": 0.1, "a.flag": True,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [*WRITTEN, *READ], ids=lambda kind: kind.name)
def test_tensors_of_every_kind_are_dequantised_as_the_package_does(kind: Kind, tmp_path: Path) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    shape = (5, 2 * block if block > 1 else 24)
    if kind in WRITTEN:
        raw = gguf.quants.quantize(RANDOM.standard_normal(shape).astype(np.float32), kind)
    else:
        # Bytes 0x00-0x3B keep every float16 scale finite.
        raw = RANDOM.integers(0, 0x3C, (shape[0], shape[1] // block * size)).astype(np.uint8)
    before = np.arange(7, dtype=np.float32)  # so that the offset matters
    file = open_gguf(write(tmp_path / "x.gguf", {"before": (before, Kind.F32), "t": (raw, kind)}))
    found = file.read("t")
    assert (found.shape, found.dtype, file.tensors["t"].kind) == (shape, np.float32, kind.name)
    assert float(np.abs(found).max()) > 0
    np.testing.assert_array_equal(found, gguf.quants.dequantize(raw, kind).reshape(shape))
    np.testing.assert_array_equal(file.read("before"), before)


def test_q8_0_is_what_its_definition_says(tmp_path: Path) -> None:
    # 32 weights: one float16 scale, then int8 multiples of it.
    codes = np.arange(-16, 16, dtype=np.int8)
    raw = np.frombuffer(struct.pack("<e", 0.25) + codes.tobytes(), np.uint8).reshape(1, 34)
    file = open_gguf(write(tmp_path / "x.gguf", {"t": (raw, Kind.Q8_0)}))
    np.testing.assert_array_equal(file.read("t"), [codes * np.float32(0.25)])


def test_blocks_are_what_llama_cpp_makes_of_them(tmp_path: Path) -> None:
    """A row of random blocks of every type, and the floats that llama.cpp's `llama-quantize
    --allow-requantize IN OUT F32` wrote for them (llama-cpp-python 0.3.36)."""
    stored = np.load(Path(__file__).with_name("cases") / "llama_cpp_blocks.npz")
    kinds = [name.removeprefix("blocks_") for name in stored if name.startswith("blocks_")]
    assert len(kinds) == 23
    for kind in kinds:
        raw = stored[f"blocks_{kind}"].reshape(1, -1)
        file = open_gguf(write(tmp_path / f"{kind}.gguf", {"t": (raw, Kind[kind])}))
        np.testing.assert_array_equal(file.read("t")[0], stored[f"floats_{kind}"], err_msg=kind)


def test_types_that_hold_no_weights_cannot_be_dequantised() -> None:
    assert can_dequantise(Kind.Q4_K)
    assert not can_dequantise(Kind.I32)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def container(pairs: list[bytes], infos: list[bytes], data: int = 0, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % 32 + data)


def counts(tensors: int, pairs: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + bytes(64)


LIST = struct.pack("<IQ", 5, 1 << 61)  # int32, so its size overflows 64 bits
NESTED = struct.pack("<IQ", 9, 1) * 50


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGUF", "only 4 bytes"),
        (bytes(64), "not a GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (container([], [], version=1), "version 1, expected 2 or 3"),
        (container([], [], version=4), "version 4"),
        (counts(0, 1 << 63), "9223372036854775808 metadata pairs are announced"),
        (counts(1 << 63, 0), "9223372036854775808 tensors are announced"),
        (container([text("k" * 30)[:-20]], []), "more bytes are announced"),
        (container([pair("k", 8, struct.pack("<Q", 1 << 62))], []), "4611686018427387904 more bytes"),
        (container([pair("k", 9, LIST)], []), "more bytes are announced"),
        (container([pair("k", 9, struct.pack("<IQ", 8, 1 << 60))], []), "1152921504606846976 strings"),
        (container([pair("k", 9, NESTED)], []), "an array of metadata type 9"),
        (container([pair("k", 77, b"")], []), "unknown metadata type 77"),
        (container([pair("k", 0, b"1"), pair("k", 0, b"1")], []), "key 'k' appears twice"),
        (container([pair("general.alignment", 4, struct.pack("<I", 48))], []), "alignment 48 is not a power"),
        (container([pair("general.alignment", 8, text("8"))], []), "alignment '8'"),
        (container([pair("general.alignment", 7, b"\1")], []), "alignment True"),
        (container([], [info("t", (4,), 0, 0)] * 2, 32), "tensor 't' appears twice"),
        (container([], [info("t", (4,), 0, 0), info("u", (4,), 0, 0)], 32), "u overlaps t|t overlaps u"),
        (container([], [info("t", (8,), 0, 0), info("u", (4,), 0, 32)], 40), "cut short: u ends at byte"),
        (container([], [info("t", (4,), 0, 8)], 64), "not aligned to 32"),
        (container([], [info("t", (4,), 99, 0)], 64), "unknown tensor type 99"),
        (container([], [info("t", (4,), 31, 0)], 64), "type Q4_0_4_4, which llama.cpp no longer reads"),
        (container([], [info("t", (33,), 8, 0)], 64), "cannot be Q8_0"),
        (container([], [info("t", (0,), 0, 0)], 64), "cannot be F32"),
        (container([], [info("t", (2**62, 2**62), 0, 0)], 64), "cut short"),
        (container([], [info("t", (1,) * 9, 0, 0)], 64), "has 9 dimensions"),
        (container([], [info("t", (), 0, 0)], 64), "has 0 dimensions"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        open_gguf(path)


def test_the_containers_of_these_tests_are_sound(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(container([pair("k", 0, b"\x07")], [info("t", (8,), 0, 0), info("u", (4,), 0, 32)], 48))
    file = open_gguf(path)
    assert file.metadata == {"k": 7}
    np.testing.assert_array_equal(file.read("u"), np.zeros(4))


def test_a_file_cut_while_open_is_noticed(tmp_path: Path) -> None:
    file = open_gguf(write(tmp_path / "x.gguf", {"t": (np.ones(64, np.float32), Kind.F32)}))
    file.path.write_bytes(file.path.read_bytes()[:-128])
    with pytest.raises(CheckpointError, match="cut short while t was read"):
        file.read("t")


WHOLE = container(
    [pair("general.architecture", 8, text("llama")), pair("l", 9, struct.pack("<IQ3i", 5, 3, 1, 2, 3))],
    [info("t", (32, 2), 8, 0), info("u", (4,), 0, 96)], 112,
)  # fmt: skip


@given(damaged(WHOLE) | st.binary(max_size=64).map(lambda tail: WHOLE[:24] + tail))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.gguf"
    path.write_bytes(content)

    def read() -> None:
        file = open_gguf(path)
        for name in file.tensors:
            if can_dequantise(file.tensors[name].code):
                file.read(name)

    read_or_refuse(read)
