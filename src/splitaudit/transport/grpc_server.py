"""The network's end at the server: TLS both ways, limits, keepalive."""

import ipaddress
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from splitaudit.errors import TransportError
from splitaudit.transport.access import AllowList
from splitaudit.transport.certificates import Credentials
from splitaudit.transport.frames import PIECE_BYTES
from splitaudit.transport.refusal import Refusal, malformed
from splitaudit.transport.service import Service
from splitaudit.transport.slots import CALLS_PER_CLIENT, Slots

SERVICE = "splitaudit.SplitLearning"
OPTIONS = (
    ("grpc.max_receive_message_length", PIECE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""Of both ends. They ping an idle connection, so that a cut network is noticed by whoever waits: within 30 seconds.

gRPC 1.85 waits for the answer as long as `ping_timeout_ms` says (by default 60 s), whatever the other timeout is.
"""


LONGEST_CALL_SECONDS = 3600
"""Deadline that a call must have at most: gRPC then ends it, also where a client stops sending, or reading."""


def start_grpc_server(
    service: Service,
    clients: AllowList,
    address: str,
    credentials: Credentials | None,
    log: Callable[[str], None],
) -> tuple[grpc.Server, int]:
    """Serve at `address` (port 0: any); the server, and its port. Without credentials, in plaintext.

    Raises TransportError.
    """
    threads = CALLS_PER_CLIENT * len(clients) + 2
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="call"),
        maximum_concurrent_rpcs=threads,
        options=(
            *OPTIONS,
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.so_reuseport", 0),
        ),
    )
    identify = clients.named_client if credentials is None else clients.client
    slots = Slots()
    # A handler is here before the first piece has come: who is slow to send it keeps slots of its own busy, and nobody
    # else's.
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        name: grpc.stream_stream_rpc_method_handler(_handler(service, name, identify, slots, log))
        for name in service.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            pair = (credentials.key, credentials.certificate)
            tls = grpc.ssl_server_credentials([pair], root_certificates=credentials.ca, require_client_auth=True)
            port = server.add_secure_port(address, tls)
    except RuntimeError:
        port = 0
    if port == 0:
        raise TransportError(
            f"transport.address: cannot listen on {address!r}. Is the port taken, the host this one's?"
        )
    server.start()
    return server, port


def check_loopback(address: str) -> None:
    """Raise TransportError unless nobody but this machine can be at the other end."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise TransportError(f"--insecure is for loopback addresses only, not {address!r}: use certificates.")


def _handler(
    service: Service,
    method: str,
    identify: Callable[[grpc.ServicerContext], int],
    slots: Slots,
    log: Callable[[str], None],
) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]:
    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            client = identify(context)
            _check_deadline(context)
            with slots.one(client):
                yield from service.answer(method, requests, client)
        except Refusal as refusal:
            context.abort(refusal.code, refusal.reason.encode("ascii", "backslashreplace")[:1000].decode("ascii"))
        except grpc.RpcError:
            return  # the client is gone
        except Exception as error:
            log(f"{method} failed: {error!r}")
            context.abort(grpc.StatusCode.DATA_LOSS, "the server failed; its log says why")

    return answer


def _check_deadline(context: grpc.ServicerContext) -> None:
    seconds = context.time_remaining()
    if seconds is None or seconds > LONGEST_CALL_SECONDS:
        raise malformed(f"a deadline of {seconds} s, expected at most {LONGEST_CALL_SECONDS}")
