"""The decoder tree: what it says about a model follows from the model's numbers alone."""

from dataclasses import replace

import pytest

from rockledge.model.block import decoder, windows
from rockledge.synth import SHAPES

TOY = SHAPES["toy"]
FIVE = replace(TOY, layers=5)


def test_every_linear_reads_what_its_place_holds() -> None:
    tree = decoder(TOY)
    for layer in tree.layers:
        for branch in layer.branches:
            of_input, of_output = branch.body.groups
            assert branch.before is not None
            assert {linear.cols for linear in of_input.linears} == {branch.before.size} == {tree.hidden}
            assert [linear.rows for linear in of_output.linears] == [tree.hidden]
        assert layer.attends.out.cols == layer.attends.q.rows
        assert layer.gated.gate.rows == layer.gated.up.rows == layer.gated.down.cols


def test_a_tied_head_is_the_embedding_and_keeps_the_last_gain() -> None:
    tied, untied = decoder(replace(TOY, tied=True)), decoder(replace(TOY, tied=False))
    assert "head" not in dict(tied.linears())
    assert dict(untied.linears())["head"].rows == TOY.vocab
    assert list(dict(tied.kept_norms())) == ["final_norm"]
    assert not dict(untied.kept_norms())


@pytest.mark.parametrize(
    ("places", "kept"),
    [("before", []), ("after", ["attn.after_norm", "ffn.after_norm"]),
     ("both", ["attn.norm", "attn.after_norm", "ffn.norm", "ffn.after_norm"])],
)  # fmt: skip
def test_a_gain_after_a_branch_is_kept_and_stops_the_stream_from_turning(
    places: str, kept: list[str]
) -> None:
    tree = decoder(replace(TOY, tied=False, branch_norms=places))
    assert [name for name, _ in tree.kept_norms() if name.startswith("layers.0.")] == [
        f"layers.0.{role}" for role in kept
    ]
    assert tree.residual_turns == (not kept)
    assert (tree.layers[0].attention.before is None) == (places == "after")


def test_norms_of_queries_are_over_a_head_or_over_all() -> None:
    config = replace(TOY, qk_norm=True)
    one, whole = (decoder(c).layers[0].attends for c in (config, replace(config, qk_norm_whole=True)))
    assert [norm.size for norm in one.norms] == [TOY.head_dim] * 2
    assert [norm.size for norm in whole.norms] == [TOY.heads * TOY.head_dim, TOY.kv_heads * TOY.head_dim]


def test_layers_differ_where_their_numbers_do() -> None:
    config = replace(TOY, windows=(64, 0), unturned=(1,), window_rope_theta=500.0)
    first, second = (layer.attends for layer in decoder(config).layers)
    assert (first.window, second.window) == (64, 0)
    assert first.rope is not None
    assert first.rope.theta == 500.0
    assert second.rope is None


def test_biases_stand_where_the_numbers_say() -> None:
    config = replace(TOY, qkv_bias=True, o_bias=False, mlp_bias=True)
    with_bias = [linear.role for linear in decoder(config).layers[0].linears if linear.bias]
    assert with_bias == ["attn.q", "attn.k", "attn.v", "ffn.gate", "ffn.up", "ffn.down"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ((0, (0, 1, 2, 3, 4)),)),
        ((48, 48, 0, 48, 0), ((0, (2, 4)), (48, (0, 1, 3)))),
        ((64,) * 5, ((64, (0, 1, 2, 3, 4)),)),
        ((64, 32, 0, 32, 64), ((0, (2,)), (32, (1, 3)), (64, (0, 4)))),
    ],
)
def test_layers_of_one_window_stand_together_and_full_attention_first(given, expected):
    assert windows(decoder(replace(FIVE, windows=given))) == expected


def test_a_model_without_a_head_keeps_the_gain_of_its_last_norm() -> None:
    causal = decoder(replace(TOY, tied=False))
    tree = decoder(replace(TOY, tied=True, headless=True))
    assert [name for name, _ in tree.linears()] == [name for name, _ in causal.linears() if name != "head"]
    assert list(dict(tree.kept_norms()))[-1] == "final_norm"
    assert tree.parameters == causal.parameters - causal.head.rows * causal.head.cols
    assert (tree.gathered, causal.gathered) == (True, True)
    assert not decoder(replace(TOY, tied=True)).gathered
