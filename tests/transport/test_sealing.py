"""Client layers on their way: opened whole and unchanged by who has the key, and by nobody else."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splitaudit.errors import TransportError
from splitaudit.transport.sealing import Seal, new_group_key, read_group_key

STATE = {"input/weight": torch.arange(12.0).view(3, 4), "input/count": torch.tensor(7)}
SEAL = Seal(bytes(32), "run")
SEALED = SEAL.close(STATE, 5)


def test_opened_as_it_was_closed() -> None:
    opened = SEAL.open(SEALED, 5)
    assert opened.keys() == STATE.keys()
    assert all(torch.equal(opened[name], tensor) for name, tensor in STATE.items())


def test_nothing_of_the_layers_is_in_what_the_server_gets() -> None:
    """Neither values nor names; and the same layers never look the same."""
    assert STATE["input/weight"].numpy().tobytes()[4:16] not in SEALED
    assert b"weight" not in SEALED
    assert SEAL.close(STATE, 5) != SEALED


@pytest.mark.parametrize(
    ("seal", "turn"), [(Seal(b"k" * 32, "run"), 5), (Seal(bytes(32), "another run"), 5), (SEAL, 4)]
)
def test_another_key_run_or_turn(seal: Seal, turn: int) -> None:
    with pytest.raises(TransportError, match=f"turn {turn}"):
        seal.open(SEALED, turn)


@given(position=st.integers(0, len(SEALED) - 1), bit=st.integers(0, 7), cut=st.booleans())
def test_one_changed_bit_or_a_missing_end(position: int, bit: int, cut: bool) -> None:
    changed = bytearray(SEALED[:position] if cut else SEALED)
    if not cut:
        changed[position] ^= 1 << bit
    with pytest.raises(TransportError, match="not what a client gave"):
        SEAL.open(bytes(changed), 5)


def test_the_key_s_file(tmp_path: Path) -> None:
    file = tmp_path / "group.key"
    with pytest.raises(TransportError, match="no group key"):
        read_group_key(file)
    file.write_text("abcd")
    with pytest.raises(TransportError, match="2 bytes"):
        read_group_key(file)
    file.write_text(new_group_key())
    assert len(read_group_key(file)) == 32
