"""Workers meet before TensorFlow does: it would wait without end, and in silence, for one that never comes.

    meet(place, seconds=120)       # returns when every worker has been heard; TimeoutError names those that were not

Each listens at its own address and knocks at all the others'. Whoever answers, be it this or TensorFlow's server that
takes its place a moment later, is there.
"""

import contextlib
import socket
import time
from collections.abc import Iterator

from workbench.cluster import Cluster
from workbench.errors import UsageError

_KNOCK_SECONDS = 2.0
_PAUSE_SECONDS = 0.1


def meet(place: Cluster, seconds: float) -> None:
    """Wait until all the workers of `place` listen, for `seconds` at most.

    Raises TimeoutError with the workers that were not heard, UsageError if this one cannot listen at its own address.
    """
    missing = {index: address for index, address in enumerate(place.workers) if index != place.index}
    until = time.monotonic() + seconds
    with _listening(place):
        while missing:
            missing = {index: address for index, address in missing.items() if not _answers(address)}
            if missing and time.monotonic() > until:
                names = ", ".join(f"worker {index} ({address})" for index, address in missing.items())
                raise TimeoutError(
                    f"{names} of {len(place.workers)} workers did not come within {seconds:g} s; this is worker "
                    f"{place.index} ({place.workers[place.index]}). Start all of them, look into their logs, and check "
                    "that the addresses can be reached from here; WORKBENCH_PEER_SECONDS sets how long to wait."
                )
            if missing:
                time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def _listening(place: Cluster) -> Iterator[None]:
    host, port = _split(place.workers[place.index])
    local = host in ("localhost", "127.0.0.1")
    try:
        server = socket.create_server((host if local else "", port))
    except OSError as error:
        raise UsageError(
            f"worker {place.index} cannot listen at {place.workers[place.index]} ({error.strerror}); expected a free "
            "port of this machine. End what uses it, or give the workers other ports."
        ) from error
    with server:
        yield


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(_split(address), timeout=_KNOCK_SECONDS):
            return True
    except OSError:
        return False


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"the worker's address is {address!r}; expected host:port")
    return host.strip("[]"), int(port)
