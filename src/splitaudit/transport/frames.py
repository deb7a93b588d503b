"""A message and its payload as one frame, which crosses in pieces.

A frame is the message's length (4 bytes, little-endian), the payload's (8), the message, zeros up to a multiple of 64
bytes, the payload. The payload is nearly all of what a split step sends, and copies are what sending costs: it is
copied once on its way into pieces and once on its way out, while other pieces are under way; and it arrives where
PyTorch would have put it, as kernels may compute otherwise on what is not aligned.

The lengths are there since gRPC may end the stream of a call that is cut off as it ends one that is complete.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from splitaudit.transport.refusal import malformed

HEADER_BYTES = 4096
"""More than a frame has besides its payload."""
PIECE_BYTES = 2**20 + 2 * HEADER_BYTES
"""Of every piece of a frame but the last. Half or twice as much takes longer; a tensor of 1 MiB and labels fit one."""
_LENGTHS, _ALIGNED = struct.Struct("<IQ"), 64

Parsed = TypeVar("Parsed", bound=Message)
Content = bytes | memoryview


def pack(message: Message, payload: Sequence[Content] = ()) -> list[Content]:
    """The frame of a message, as parts that follow each other; the payload's own among them, uncopied."""
    content = message.SerializeToString()
    head = _LENGTHS.pack(len(content), size(payload)) + content
    return [head.ljust(_aligned(len(head)), b"\0"), *payload]


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
    """A frame of `limit` bytes at most from its pieces, in memory that is aligned, and can be written to.

    Raises a Refusal if it is larger, not complete, or cut otherwise than `pieces` does.
    """
    frame, end = memoryview(b""), 0
    for piece in received:
        if end == 0:
            frame = _memory(_announced(piece, limit))
        expected = min(PIECE_BYTES, len(frame) - end)
        if not piece or len(piece) != expected:
            raise malformed(f"a piece of {len(piece)} bytes, expected {expected}, of a frame of {len(frame)}")
        frame[end : end + len(piece)] = piece
        end += len(piece)
    if end == 0 or end < len(frame):
        raise malformed(f"{end} bytes of a frame of {len(frame)}, and then no more")
    return frame


def _announced(head: bytes, limit: int) -> int:
    """The bytes of the frame that begins so."""
    if len(head) < _LENGTHS.size:
        raise malformed(f"a frame of {len(head)} bytes: its lengths take {_LENGTHS.size}")
    message, payload = _LENGTHS.unpack_from(head)
    if message > HEADER_BYTES - _ALIGNED:
        raise malformed(f"a message of {message} bytes, but none has more than {HEADER_BYTES - _ALIGNED}")
    announced: int = _aligned(_LENGTHS.size + message) + payload
    if announced > limit:
        raise malformed(f"{announced} bytes, at most {limit} make sense here")
    return announced


def _memory(length: int) -> memoryview:
    """So many bytes, whatever they are, from an aligned address on."""
    memory = np.empty(length + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    return memory[start : start + length].data


def unpack(kind: type[Parsed], frame: memoryview) -> tuple[Parsed, memoryview]:
    """The message and the payload of a gathered frame. Raises a Refusal if the frame holds no such message."""
    length, _ = _LENGTHS.unpack_from(frame)
    end = _LENGTHS.size + length
    try:
        message = kind.FromString(bytes(frame[_LENGTHS.size : end]))
    except DecodeError:
        raise malformed(f"{kind.__name__}: the bytes are no such message, or not all of it") from None
    return message, frame[_aligned(end) :]


def unpack_alone(kind: type[Parsed], frame: memoryview) -> Parsed:
    """The message of a frame that has no payload. Raises a Refusal if it has."""
    message, payload = unpack(kind, frame)
    if payload:
        raise malformed(f"{kind.__name__}: {len(payload)} bytes of payload, expected none")
    return message


def _aligned(end: int) -> int:
    return -(-end // _ALIGNED) * _ALIGNED
