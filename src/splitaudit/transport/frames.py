"""A message and its payload as one frame, which crosses in pieces.

A frame is the message's length (4 bytes, little-endian), the message, zeros up to a multiple of 64 bytes, the payload.
The payload is nearly all of what a split step sends, and copies are what sending costs: it is copied once on its way
into pieces and once on its way out, while other pieces are under way; and what arrives is aligned for what reads it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from splitaudit.transport.refusal import malformed

HEADER_BYTES = 4096
"""More than a frame has besides its payload."""
PIECE_BYTES = 2**20 + 2 * HEADER_BYTES
"""Of every piece of a frame but the last. Half as much, or twice, takes longer."""
_LENGTH_BYTES, _ALIGNED = 4, 64

Parsed = TypeVar("Parsed", bound=Message)
Content = bytes | memoryview


def pack(message: Message, payload: Sequence[Content] = ()) -> list[Content]:
    """The frame of a message, as parts that follow each other; the payload's own among them, uncopied."""
    content = message.SerializeToString()
    head = len(content).to_bytes(_LENGTH_BYTES, "little") + content
    return [head.ljust(_payload_start(len(head)), b"\0"), *payload]


def size(frame: Sequence[Content]) -> int:
    """Bytes of a packed frame."""
    return sum(len(part) for part in frame)


def pieces(frame: Sequence[Content]) -> Iterator[bytes]:
    """A packed frame, cut for the wire."""
    waiting: list[Content] = []
    for part in frame:
        start = 0
        while start < len(part):
            taken = memoryview(part)[start : start + PIECE_BYTES - size(waiting)]
            waiting.append(taken)
            start += len(taken)
            if size(waiting) == PIECE_BYTES:
                yield b"".join(waiting)
                waiting = []
    if waiting:
        yield b"".join(waiting)


def gather(received: Iterable[bytes], limit: int) -> memoryview:
    """A frame of `limit` bytes at most from its pieces, in memory that can be written to.

    Raises a Refusal if it is larger, or cut otherwise than `pieces` does.
    """
    frame = np.empty(limit, np.uint8).data
    end = 0
    for piece in received:
        if end % PIECE_BYTES or not piece:
            raise malformed(f"a piece of {len(piece)} bytes after {end}: all but the last have {PIECE_BYTES}")
        if end + len(piece) > limit:
            raise malformed(f"{end + len(piece)} bytes, at most {limit} make sense here")
        frame[end : end + len(piece)] = piece
        end += len(piece)
    return frame[:end]


def unpack(kind: type[Parsed], frame: Content) -> tuple[Parsed, memoryview]:
    """The message and the payload of a frame. Raises a Refusal if the frame holds no such message."""
    end = _LENGTH_BYTES + int.from_bytes(frame[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES <= end <= min(len(frame), HEADER_BYTES):
        raise malformed(
            f"{kind.__name__}: of {end} bytes, but the frame has {len(frame)}, and no message more than {HEADER_BYTES}"
        )
    try:
        message = kind.FromString(bytes(frame[_LENGTH_BYTES:end]))
    except DecodeError:
        raise malformed(f"{kind.__name__}: the bytes are no such message, or not all of it") from None
    return message, memoryview(frame)[_payload_start(end) :]


def unpack_alone(kind: type[Parsed], frame: Content) -> Parsed:
    """The message of a frame that has no payload. Raises a Refusal if it has."""
    message, payload = unpack(kind, frame)
    if payload:
        raise malformed(f"{kind.__name__}: {len(payload)} bytes of payload, expected none")
    return message


def _payload_start(end: int) -> int:
    return -(-end // _ALIGNED) * _ALIGNED
