"""Clients that train with a coordinator end with the parameters of the run in one process, bit for bit."""

import pytest

from splitaudit.data import load_audit_data
from tests.transport.parts import (
    BATCH_NORM,
    Party,
    assert_same,
    final_state,
    in_process,
    make_coordinator,
    run_together,
    tiny_config,
)


@pytest.mark.parametrize("schedule", ["round_robin", "splitfed", "splitfed_v2"])
@pytest.mark.parametrize("topology", ["u_shaped", "vanilla"])
def test_as_in_one_process(schedule: str, topology: str) -> None:
    config = tiny_config(f"training.schedule={schedule}", f"training.topology={topology}", *BATCH_NORM)
    data = load_audit_data(config)
    coordinator = make_coordinator(config)
    parties = [Party(index, config, data, coordinator) for index in range(3)]
    run_together(parties)
    expected = in_process(config)
    for party in parties:
        assert_same((final_state(config, coordinator, party), expected))
