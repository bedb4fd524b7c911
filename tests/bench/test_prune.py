"""The tables of `bench.prune`."""

import math

from bench.prune import lines


def test_losses_become_perplexities_and_the_chosen_shape_is_marked() -> None:
    sizes = {"layers": 24, "hidden": 576, "ffn": 992, "heads": 9, "kv_heads": 3, "body_share": 0.59}
    tried = [{**sizes, "name": "both", "loss_cut": 8.0, "loss": 4.0, "chosen": True}]
    table = lines({"tried": tried}, {"a text": (math.log(20), math.log(50))})
    assert "| both (chosen) | 24 | 576 | 992 | 9/3 | 59% | 8.00 | 4.00 |" in table
    assert table[-1] == "| a text | 20.0 | 50.0 |"
