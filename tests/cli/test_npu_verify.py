"""`rockledge npu verify`: all golden programs pass, a wrong one fails, and bad files are one sentence."""

import json
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "npu" / "regcmd_golden.json"


def _small(tmp_path, ids):
    content = json.loads(GOLDEN.read_text())
    content["cases"] = [case for case in content["cases"] if case["id"] in ids]
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(content))
    return path, content


def test_all_golden_programs_pass(rockledge):
    done = rockledge("npu", "verify", GOLDEN, "--json")
    assert done.code == 0
    ids = [case["id"] for case in json.loads(GOLDEN.read_text())["cases"]]
    assert [case["id"] for case in done.json["cases"]] == ids
    assert all(case["passed"] for case in done.json["cases"])
    assert (done.json["passed"], done.json["failed"]) == (len(ids), 0)
    exact = [case["error"] for case in done.json["cases"] if "_int" in case["id"]]
    assert exact
    assert not any(exact)


def test_a_program_that_computes_something_else_fails_the_command(rockledge, tmp_path):
    path, content = _small(tmp_path, {"mtx_int8_int32_m64_k512_n256", "mtx_fp16_fp16_m4_k64_n16"})
    words = content["cases"][0]["tasks"][0]["words"]
    # Twice the scale of the output converter: the program is sound, its result is not the product.
    words[words.index("1001000000014084")] = "1001000000024084"
    path.write_text(json.dumps(content))
    done = rockledge("npu", "verify", path, "--json", "--seed", 3)
    assert done.code == 1
    assert [case["passed"] for case in done.json["cases"]] == [False, True]
    assert done.json["cases"][0]["error"] > 0
    shown = rockledge("npu", "verify", path)
    assert shown.code == 1
    assert "1 of 2 cases passed" in shown.out


def test_a_refused_program_says_word_register_and_rule(rockledge, tmp_path):
    path, content = _small(tmp_path, {"mtx_int8_int32_m64_k512_n256"})
    words = content["cases"][0]["tasks"][0]["words"]
    at = words.index("0201000000b11040")
    words[at] = "0201000000bc1040"
    path.write_text(json.dumps(content))
    (case,) = rockledge("npu", "verify", path, "--json").json["cases"]
    assert (case["passed"], case["error"]) == (False, None)
    assert f"word {at}, CNA_CBUF_CON0: 12 data and 11 weight banks" in case["detail"]
    assert "rule bank-sum" in case["detail"]


def test_mistakes_are_one_sentence(rockledge, tmp_path):
    missing = rockledge("npu", "verify", tmp_path / "nothing", "--json")
    assert missing.code == 1
    assert "cannot be read" in missing.json["error"]
    (tmp_path / "odd").write_text("{")
    assert "not a JSON file of cases" in rockledge("npu", "verify", tmp_path / "odd").err
    (tmp_path / "odd").write_text("[1]")
    assert 'no list "cases"' in rockledge("npu", "verify", tmp_path / "odd").err
    assert rockledge("npu", "verify", GOLDEN, "--seed", -1).code == 2
