"""What a launcher does with the signals that ask it to end.

with signals_to(client.interrupt):
    ...
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def signals_to(handle: Callable[[int], None]) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP go to `handle` instead. Only a process' main thread can do this."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, lambda number, frame: handle(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
