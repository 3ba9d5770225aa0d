import socket
import threading

import pytest

from workbench.cluster import Cluster
from workbench.errors import UsageError
from workbench.train.rendezvous import meet


@pytest.fixture
def addresses() -> list[str]:
    """Three free addresses of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    found = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return found


def test_workers_that_all_come_meet(addresses: list[str]) -> None:
    def come(index: int) -> None:
        meet(Cluster(tuple(addresses), index), 20)
        # TensorFlow's own server takes the place of ours; the last worker may find only that.
        servers.append(socket.create_server(("127.0.0.1", int(addresses[index].split(":")[1]))))

    servers: list[socket.socket] = []
    threads = [threading.Thread(target=come, args=[index]) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(servers) == 3
    for server in servers:
        server.close()


def test_who_never_comes_is_named(addresses: list[str]) -> None:
    with socket.create_server(("127.0.0.1", int(addresses[1].split(":")[1]))), pytest.raises(TimeoutError) as caught:
        meet(Cluster(tuple(addresses), 0), 0.3)
    message = str(caught.value)
    assert message.startswith(f"worker 2 ({addresses[2]}) of 3 workers did not come within 0.3 s; this is worker 0")
    assert addresses[1] not in message


def test_a_port_that_is_taken_is_refused(addresses: list[str]) -> None:
    with (
        socket.create_server(("127.0.0.1", int(addresses[0].split(":")[1]))),
        pytest.raises(UsageError, match=r"worker 0 cannot listen at 127\.0\.0\.1:.*expected a free port"),
    ):
        meet(Cluster(tuple(addresses), 0), 5)


@pytest.mark.parametrize("address", ["node1", ":2222", "node1:http"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected host:port"):
        meet(Cluster((address, "b:1"), 0), 1)
