"""The settings that clients and server must share, and how they find out that they do not."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import grpc

from splitaudit.config import RunConfig
from splitaudit.transport.refusal import Refusal, malformed
from splitaudit.transport.wire import Specs

PROTOCOL = 2
"""The version of what `messages.proto` means."""


def shared_settings(config: RunConfig, image_shape: tuple[int, ...], specs: Specs) -> str:
    """What both sides must agree on, as canonical JSON: settings, and what crosses the cuts.

    Neither the seed nor where data lies is among it: the server is not told.
    """
    settings = config.model_dump(
        mode="json",
        include={
            "model": {"name", "module", "width", "input_end", "server_end"},
            "training": True,
            "data": {"clients"},
            "runtime": {"precision"},
            "transport": {"wire", "missing"},
        },
    )
    crossing = {
        "image_shape": list(image_shape),
        "classes": specs.classes,
        **{
            f"{name}.{key}": value
            for name, spec in (("o1", specs.o1), ("o2", specs.o2))
            for key, value in (("shape", list(spec.shape)), ("dtype", str(spec.dtype).removeprefix("torch.")))
        },
    }
    # As many input layers as clients travel then, and whose they are matters to an audit's server.
    diverse = {"defense.during": "diverse"} if config.diverse else {}
    return json.dumps(settings | diverse | {"cut": crossing}, sort_keys=True)


def fingerprint(settings: str) -> str:
    """The name of a run between its parties: a hash of the settings they share."""
    return hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()


def check_settings(client: bytes, server: str) -> None:
    """Raise a Refusal that names every difference."""
    if client == server.encode():
        return
    mine = dict(_flat(json.loads(server)))
    try:
        theirs = dict(_flat(json.loads(client)))
    except (ValueError, RecursionError):
        raise malformed("settings: not JSON, or nested too deeply") from None
    differences = [
        f"{key}: {theirs.get(key)!r} at the client, {mine.get(key)!r} at the server"
        for key in sorted({*mine, *theirs})
        if mine.get(key) != theirs.get(key)
    ]
    raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "the settings differ: " + "; ".join(differences)[:2000])


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
