"""The order of turns is that of the schedules in one process."""

import pytest

from splitaudit.transport.turns import Turns
from tests.transport.parts import tiny_config


@pytest.mark.parametrize("schedule", ["round_robin", "splitfed", "splitfed_v2"])
def test_every_iteration_once_in_order(schedule: str) -> None:
    """And all that is asked of the numbers agrees with the turns themselves."""
    turns = Turns(tiny_config(f"training.schedule={schedule}").training, 3)
    every = [turns[number] for number in range(turns.end)]
    assert [turn.number for turn in every] == list(range(turns.end))
    steps = [turn for turn in every if turn.step is not None]
    assert [turn.step[0] for turn in steps if turn.step] == list(range(12))
    for client in range(3):
        batches = [turn.step[1] for turn in steps if turn.client == client and turn.step]
        assert batches == list(range(4)), "each client's batches, in order"
        mine = [turn for done in range(turns.rounds) for turn in turns.of(client, done)]
        assert mine == [turn for turn in every[1:] if turn.client == client]
    for number in range(turns.end + 1):
        assert turns.iterations_before(number) == sum(turn.step is not None for turn in every[:number])
    for done in range(turns.rounds):
        assert turns[turns.first(done)].step is not None
        assert turns[turns.first(done) - 1].step is None
    assert [n for n in range(turns.end) if turns.completes_round(n)] == [
        turns.first(d + 1) - 1 for d in range(turns.rounds)
    ]
    assert all(every[turns.last_given(number)].step is None for number in range(1, turns.end + 1))


def test_splitfed_gives_after_all_steps() -> None:
    """A round: the clients' steps take turns, then each gives."""
    turns = Turns(tiny_config("training.schedule=splitfed").training, 3)
    assert [turns[number].client for number in range(1, 10)] == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert [turns[number].step is None for number in range(1, 10)] == [False] * 6 + [True] * 3
    assert turns.last_given(8) == 7
    assert turns.last_given(7) == 0
