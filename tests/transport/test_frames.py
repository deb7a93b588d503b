"""A frame gives back what was put in, or is refused: whatever its bytes, nothing but a Refusal comes of them."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitaudit.transport import frames
from splitaudit.transport import messages_pb2 as pb
from splitaudit.transport.frames import HEADER_BYTES, gather, pack, pieces, size, unpack, unpack_alone
from splitaudit.transport.refusal import Refusal

LIMIT = 2 * HEADER_BYTES


@settings(max_examples=60, deadline=None)
@given(turn=st.integers(0, 2**64 - 1), payload=st.lists(st.binary(max_size=50), max_size=3), cut=st.integers(1, 99))
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
    assert (len(frame) - len(read)) % 64 == 0
    assert not read.readonly


@pytest.mark.parametrize(
    ("crossing", "reason"),
    [
        ([b"xxxx", b"xxxx", b"x"], "9 bytes, at most 8"),
        ([b"xxxx", b"xxx", b"x"], "a piece of 1 bytes after 7: all but the last have 4"),
        ([b"xxxx", b""], "a piece of 0 bytes after 4"),
        ([b"", b"xxxx"], "a piece of 0 bytes after 0"),
    ],
)
def test_pieces_of_other_sizes(crossing: list[bytes], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "PIECE_BYTES", 4)
    assert bytes(gather([b"xxxx", b"yyyy"], 8)) == b"xxxxyyyy"
    with pytest.raises(Refusal, match=reason):
        gather(crossing, 8)


@settings(max_examples=200, deadline=None)
@given(frame=st.binary(max_size=80))
def test_any_bytes(frame: bytes) -> None:
    with suppress(Refusal):
        unpack(pb.StepRequest, frame)


def test_what_is_refused() -> None:
    with pytest.raises(Refusal, match="LeaveRequest: 1 bytes of payload, expected none"):
        unpack_alone(pb.LeaveRequest, gather(pieces(pack(pb.LeaveRequest(), [b"x"])), LIMIT))
    with pytest.raises(Refusal, match=f"no message more than {HEADER_BYTES}"):
        unpack(pb.GiveRequest, gather(pieces(pack(pb.GiveRequest(key=pb.Key(run="x" * HEADER_BYTES)))), LIMIT))
    with pytest.raises(Refusal, match="the frame has 3"):
        unpack(pb.LeaveRequest, bytes(3))
