"""A frame gives back what was put in, or is refused: whatever its bytes, nothing but a Refusal comes of them."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.frames import HEADER_BYTES, pack, unpack, unpack_alone
from splitaudit.transport.refusal import Refusal


@settings(max_examples=60, deadline=None)
@given(turn=st.integers(0, 2**64 - 1), pieces=st.lists(st.binary(max_size=50), max_size=3))
def test_round_trip(turn: int, pieces: list[bytes]) -> None:
    message = pb.GiveRequest(key=pb.Key(turn=turn))
    received, payload = unpack(pb.GiveRequest, pack(message, pieces))
    assert received == message
    assert bytes(payload) == b"".join(pieces)


@settings(max_examples=200, deadline=None)
@given(frame=st.binary(max_size=80))
def test_any_bytes(frame: bytes) -> None:
    with suppress(Refusal):
        unpack(pb.StepRequest, frame)


def test_what_is_refused() -> None:
    with pytest.raises(Refusal, match="LeaveRequest: 1 bytes of payload, expected none"):
        unpack_alone(pb.LeaveRequest, pack(pb.LeaveRequest(), [b"x"]))
    with pytest.raises(Refusal, match=f"no message more than {HEADER_BYTES}"):
        unpack(pb.GiveRequest, pack(pb.GiveRequest(key=pb.Key(run="x" * HEADER_BYTES))))
    with pytest.raises(Refusal, match="the frame has 3"):
        unpack(pb.LeaveRequest, bytes(3))
