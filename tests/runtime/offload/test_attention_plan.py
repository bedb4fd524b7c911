"""The plan of attention: what every lane has, and that its programs fit its buffers."""

import pytest

from rockledge.board.boards import PROGRAMMED
from rockledge.model.config import ModelConfig
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, WEIGHT
from rockledge.runtime.offload.attention_plan import AttentionPlan, plan_attention
from rockledge.runtime.offload.plan import Place


class Heads:
    """Of a Llama 8B."""

    heads, kv_heads, head_dim = 32, 8, 128


def plan(spaces: int, steps: tuple[int, ...] = (64, 512)) -> AttentionPlan:
    shape: ModelConfig = Heads()  # type: ignore[assignment]  # no other field is read
    return plan_attention(shape, 4096, lanes=3, spaces=spaces, steps=steps, board=PROGRAMMED)


@pytest.mark.parametrize("spaces", [1, 3])
def test_places_have_room_for_every_size(spaces: int) -> None:
    found = plan(spaces)
    assert [size.rows for size in found.sizes] == [22, 171]
    assert found.group == 4

    def room(place: Place) -> int:
        return found.buffers[place.buffer].bytes - place.offset

    for size in found.sizes:
        scores, sums = size.products.scores, size.products.sums
        assert scores.vectors >= size.rows * 4
        assert sums.vectors >= 2 * size.rows * 4
        for lane in range(3):
            assert room(found.queries[lane]) >= scores.bytes(INPUT) == scores.vectors * 128
            assert room(found.keys[lane]) >= scores.bytes(WEIGHT) == 512 * 128
            assert scores.bytes(OUTPUT) == 4 * scores.vectors * 512
            assert all(room(one[lane]) >= scores.bytes(OUTPUT) for one in found.scores)
            assert room(found.weights[lane]) >= sums.bytes(INPUT) == sums.vectors * 512
            assert room(found.values[lane]) >= sums.bytes(WEIGHT)
            assert room(found.sums[lane]) >= sums.bytes(OUTPUT) == 4 * sums.vectors * 128
            assert found.buffers[size.sum_programs[lane]].bytes >= sums.program.size_bytes


def test_lanes_of_one_space_share_keys_and_values_and_nothing_else() -> None:
    shared, own = plan(1), plan(3)
    assert len(set(shared.keys)) == len(set(shared.values)) == 1
    assert len(set(own.keys)) == len(set(own.values)) == 3
    for each in (shared, own):
        places = [*each.queries, *each.scores[0], *each.scores[1], *each.weights, *each.sums]
        assert len(set(places)) == len(places)
    assert [buffer.space for buffer in own.buffers[-3:]] == [0, 1, 2]
    assert {buffer.space for buffer in shared.buffers} == {0}


def test_memory_grows_with_the_steps() -> None:
    assert plan(1, (64,)).bytes < plan(1).bytes < 64 << 20
