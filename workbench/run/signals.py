"""What a launcher does with the signals that ask it to end.

with signals_to(client.interrupt):
    ...
raise stop_for(signal.SIGTERM, "interrupted by SIGTERM in cell 4")     # SystemExit(143)
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


def stop_for(number: int, reason: str) -> KeyboardInterrupt | SystemExit:
    """What a launcher raises when all is closed: KeyboardInterrupt after SIGINT, else SystemExit; with `reason`."""
    stop = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
    stop.add_note(reason)
    return stop
