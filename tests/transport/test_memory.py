"""Memory for one message after the other is not given anew page by page."""

import subprocess
import sys

import pytest

MESSAGES = """
import resource, threading
from splitaudit.transport.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bytes(bytearray(8 * 2**20))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

{call}
faults()
thread = threading.Thread(target=faults)
thread.start()
thread.join()
"""


def page_faults(call: str) -> list[int]:
    """Of twenty messages in a process's first thread, and of as many in another one."""
    command = [sys.executable, "-c", MESSAGES.format(call=call)]
    return [int(line) for line in subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_used_again() -> None:
    kept, usual = page_faults("keep_freed_memory()"), page_faults("")
    pages_of_one = 2 * 8 * 2**20 // 4096
    assert sum(kept) < 2 * pages_of_one, "those of the first message"
    assert sum(usual) > 2 * sum(kept)
