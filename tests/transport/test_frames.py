"""A frame gives back what was put in, or is refused: whatever its bytes, nothing but a Refusal comes of them."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitaudit.transport import frames
from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.frames import HEADER_BYTES, gather, pack, pieces, size, unpack, unpack_alone
from splitaudit.transport.refusal import Refusal

LIMIT = 2 * HEADER_BYTES


@settings(max_examples=60, deadline=None)
@given(turn=st.integers(0, 2**64 - 1), payload=st.lists(st.binary(max_size=50), max_size=3), cut=st.integers(12, 99))
def test_round_trip(turn: int, payload: list[bytes], cut: int) -> None:
    """Whatever the size of a piece: all but the last have that size, and the payload begins where words may."""
    message = pb.GiveRequest(key=pb.Key(turn=turn))
    packed = pack(message, payload)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "PIECE_BYTES", cut)
        crossing = list(pieces(packed))
        assert {len(piece) for piece in crossing[:-1]} <= {cut}
        assert 0 < len(crossing[-1]) <= cut
        frame = gather(crossing, size(packed))
    received, read = unpack(pb.GiveRequest, frame)
    assert received == message
    assert bytes(read) == b"".join(payload)
    assert np.frombuffer(frame, np.uint8).ctypes.data % 64 == (len(frame) - len(read)) % 64 == 0
    assert not frame.readonly


def head(message: int, payload: int) -> bytes:
    return message.to_bytes(4, "little") + payload.to_bytes(8, "little")


FRAME = head(0, 7).ljust(64, b"\0") + b"payload"


@pytest.mark.parametrize(
    ("crossing", "reason"),
    [
        ([], "0 bytes of a frame of 0, and then no more"),
        ([b""], "a frame of 0 bytes"),
        ([FRAME[:11]], "a frame of 11 bytes: its lengths take 12"),
        ([FRAME[:20]], "20 bytes of a frame of 71, and then no more"),
        ([FRAME[:20], FRAME[20:40], FRAME[40:60]], "60 bytes of a frame of 71, and then no more"),
        ([FRAME[:20], FRAME[20:39], FRAME[39:59], FRAME[59:]], "a piece of 19 bytes, expected 20, of a frame of 71"),
        ([FRAME[:20], FRAME[20:40], b""], "a piece of 0 bytes, expected 20"),
        ([FRAME[:20], FRAME[20:40], FRAME[40:60], FRAME[60:], b"x"], "a piece of 1 bytes, expected 0"),
        ([FRAME[:20], FRAME[20:40], FRAME[40:60], FRAME[60:], b""], "a piece of 0 bytes, expected 0"),
        ([head(0, 8).ljust(20, b"\0")], "72 bytes, at most 71"),
        ([head(0, 2**64 - 1).ljust(20, b"\0")], "at most 71"),
        ([head(2**32 - 1, 0)], "a message of 4294967295 bytes"),
    ],
)
def test_pieces_that_make_no_frame(crossing: list[bytes], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a call that was cut off: gRPC may end their stream as if they were all."""
    monkeypatch.setattr(frames, "PIECE_BYTES", 20)
    assert bytes(gather([FRAME[:20], FRAME[20:40], FRAME[40:60], FRAME[60:]], 71)) == FRAME
    with pytest.raises(Refusal, match=reason):
        gather(crossing, 71)


@settings(max_examples=200, deadline=None)
@given(frame=st.binary(max_size=80))
def test_any_bytes(frame: bytes) -> None:
    with suppress(Refusal):
        unpack(pb.StepRequest, gather([frame], LIMIT))
    with suppress(Refusal):
        unpack(
            pb.StepRequest,
            gather(
                [head(len(frame), 0).ljust(12, b"\0") + frame.ljust(-(12 + len(frame)) % 64 + len(frame), b"\0")], LIMIT
            ),
        )


def test_what_is_refused() -> None:
    with pytest.raises(Refusal, match="LeaveRequest: 1 bytes of payload, expected none"):
        unpack_alone(pb.LeaveRequest, gather(pieces(pack(pb.LeaveRequest(), [b"x"])), LIMIT))
    with pytest.raises(Refusal, match="a message of 4102 bytes, but none has more than 4032"):
        gather(pieces(pack(pb.GiveRequest(key=pb.Key(run="x" * HEADER_BYTES)))), LIMIT)
