"""A message and its payload as one frame: the message's length (4 bytes, little-endian), the message, the payload.

A payload is copied once on its way into a frame, and not at all on its way out. It is nearly all of what a split step
sends, and copies are what sending costs.
"""

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from splitaudit.transport.refusal import malformed

HEADER_BYTES = 4096
"""More than a frame has besides its payload."""
_LENGTH_BYTES = 4

Parsed = TypeVar("Parsed", bound=Message)


def pack(message: Message, payload: Sequence[bytes | memoryview] = ()) -> bytes:
    """The frame of a message; the payload's pieces one after the other."""
    content = message.SerializeToString()
    return b"".join((len(content).to_bytes(_LENGTH_BYTES, "little"), content, *payload))


def unpack(kind: type[Parsed], frame: bytes) -> tuple[Parsed, memoryview]:
    """The message and the payload of a frame. Raises a Refusal if the frame holds no such message."""
    end = _LENGTH_BYTES + int.from_bytes(frame[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES <= end <= min(len(frame), HEADER_BYTES):
        raise malformed(
            f"{kind.__name__}: of {end} bytes, but the frame has {len(frame)}, and no message more than {HEADER_BYTES}"
        )
    try:
        message = kind.FromString(frame[_LENGTH_BYTES:end])
    except DecodeError:
        raise malformed(f"{kind.__name__}: the bytes are no such message, or not all of it") from None
    return message, memoryview(frame)[end:]


def unpack_alone(kind: type[Parsed], frame: bytes) -> Parsed:
    """The message of a frame that has no payload. Raises a Refusal if it has."""
    message, payload = unpack(kind, frame)
    if payload:
        raise malformed(f"{kind.__name__}: {len(payload)} bytes of payload, expected none")
    return message
