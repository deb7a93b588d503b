"""A bad network: a TCP proxy on loopback that delays what passes through it, and resets connections."""

import random
import socket
import struct
import threading
import time


class Proxy:
    """Passes connections on to a port, until it is closed."""

    def __init__(self, port: int, *, delay: float = 0.0, reset_share: float = 0.0, seed: int = 0) -> None:
        self._target, self._delay, self._reset_share = port, delay, reset_share
        self._random = random.Random(seed)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._whole = threading.Event()
        self._whole.set()
        self.resets = self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Reset every connection now; new ones may follow."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _reset(end)
        self.resets += len(pairs) > 0

    def cut(self, seconds: float) -> None:
        """Let nothing through for a while, in silence: a network cut both ways. What is under way arrives late."""
        self.cuts += 1
        self._whole.clear()
        time.sleep(seconds)
        self._whole.set()

    def close(self) -> None:
        """Stop."""
        self._listener.close()
        self._whole.set()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._whole.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _reset(near)
                continue
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while content := source.recv(1 << 16):
                time.sleep(self._delay)
                self._whole.wait()
                if self._random.random() < self._reset_share:
                    self.resets += 1
                    raise ConnectionError
                sink.sendall(content)
        except OSError:
            pass
        for end in (source, sink):
            _reset(end)


def _reset(end: socket.socket) -> None:
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
