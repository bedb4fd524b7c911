"""`rockledge npu disasm` prints every word, and says what is suspicious."""

import json
from pathlib import Path

from rockledge.npu.programs.tile_program import product_program
from rockledge_npu_lab.disassemble import assemble

GOLDEN = Path(__file__).parents[1] / "npu" / "regcmd_golden.json"
ADDRESSES = {"input": 0x1000, "weight": 0x20000, "output": 0x40000}


def test_raw_words_are_printed_so_that_they_read_back(rockledge, tmp_path):
    words = product_program(64, 512, 256).at(ADDRESSES)
    (tmp_path / "stream.bin").write_bytes(words.tobytes())
    done = rockledge("npu", "disasm", tmp_path / "stream.bin")
    assert done.code == 0
    assert assemble(done.out) == words.tolist()
    assert "CNA_DATA_SIZE0 width=1 height=64" in done.out


def test_json_has_every_word_and_finding_of_every_case(rockledge):
    done = rockledge("npu", "disasm", GOLDEN, "--json")
    assert done.code == 0
    cases = json.loads(GOLDEN.read_text())["cases"]
    assert [stream["id"] for stream in done.json["streams"]] == [case["id"] for case in cases]
    for stream, case in zip(done.json["streams"], cases, strict=True):
        words = [word for task in case["tasks"] for word in task["words"]]
        assert [line["word"] for line in stream["words"]] == words
    assert done.json["findings"] == sum(len(stream["findings"]) for stream in done.json["streams"])
    found = {
        finding["about"]
        for stream in done.json["streams"]
        if stream["id"].startswith("gor_lut")
        for finding in stream["findings"]
    }
    assert found == {"DPU_DATA_CUBE_NOTCH"}


def test_mistakes_are_one_sentence(rockledge, tmp_path):
    (tmp_path / "odd").write_bytes(b"12345")
    odd = rockledge("npu", "disasm", tmp_path / "odd", "--json")
    assert (odd.code, odd.json["exit_code"]) == (1, 1)
    assert "expected a multiple of 8" in odd.json["error"]
    assert rockledge("npu", "disasm", tmp_path / "nothing").code == 2
    assert "ACTION" in rockledge("npu").err
