"""A server from its start to its end.

    run(Settings(rest_api_port=8501, model_name="digits", model_base_path="/models/digits"))

It ends at SIGTERM or Ctrl-C: nothing new is taken, what is under way is answered.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Callable

import uvloop

from workbench.errors import UsageError
from workbench.operate.serve import grpc_api, http_limits, rest
from workbench.operate.serve.access import Access
from workbench.operate.serve.access_log import AccessLog
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.inference import Service
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.protos import model_server_config_pb2
from workbench.operate.serve.request_log import RequestLog
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.versions import Versions

_log = logging.getLogger(__name__)
_SECONDS_TO_END = 30
_COLLECTED_AFTER = 100_000, 50, 100  # lists made; a request of 32 images has 2,000, and makes no garbage of cycles


def run(settings: Settings, started: Callable[[int | None, int | None], None]) -> None:
    """Serve until a signal comes. `started` is told the ports of REST and of gRPC, once both listen."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, started))


async def serve(settings: Settings, started: Callable[[int | None, int | None], None]) -> None:
    """The same, in an event loop that is there."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with contextlib.AsyncExitStack() as stack:
        access = Access.read(settings.api_keys)
        metrics = Metrics()
        log = None
        if settings.request_log:
            try:
                log = RequestLog(settings.request_log, settings.request_log_rate, settings.request_log_bytes, metrics)
            except OSError as error:
                raise UsageError(f"{settings.request_log} cannot be the folder of the request log: {error}") from error
            stack.callback(log.close)
        lines = AccessLog(settings.access_log) if settings.access_log else None
        if lines:
            stack.callback(lines.close)
        versions = Versions(settings, metrics)
        stack.push_async_callback(_end, versions)
        service = Service(versions, metrics, settings.strict_shapes, log)
        grpc_port = rest_port = None
        if settings.port is not None or settings.grpc_socket_path:
            server, grpc_port = await grpc_api.start(service, versions, settings, access, metrics, lines)
            stack.push_async_callback(server.stop, _SECONDS_TO_END)
        if settings.rest_api_port is not None:
            web = rest.app(service, versions, settings, access, metrics, lines)
            try:
                rest_port = await stack.enter_async_context(http_limits.serving(web, settings))
            except OSError as error:
                raise UsageError(f"{settings.host}:{settings.rest_api_port} cannot be listened at: {error}") from error
        started(rest_port, grpc_port)
        loading = asyncio.create_task(_load(versions, settings))
        stack.callback(loading.cancel)
        loading.add_done_callback(lambda _: stopping.set())  # it goes on for ever, unless there is a mistake in it
        await stopping.wait()
        if loading.done():
            loading.result()
        _log.info("ending, after what is under way")


async def _end(versions: Versions) -> None:
    try:
        async with asyncio.timeout(_SECONDS_TO_END):
            await versions.close()
    except TimeoutError:  # their processes end with this one
        _log.error("some requests were not answered within %d s", _SECONDS_TO_END)


async def _load(versions: Versions, settings: Settings) -> None:
    """Load what is to be served, and go on looking for what changes."""
    async with asyncio.TaskGroup() as group:
        group.create_task(versions.watch())  # at once: one model that takes long to load holds up no other
        await _load_first(versions, settings)


async def _load_first(versions: Versions, settings: Settings) -> None:
    try:
        if settings.model_config_file:
            await versions.read_config()
        else:
            config = model_server_config_pb2.ModelServerConfig()
            config.model_config_list.config.add(name=settings.model_name, base_path=settings.model_base_path)
            await versions.configure(config)
    except (ServingError, UsageError) as error:
        _log.error("%s", error)
    gc.collect()
    gc.freeze()  # what is here now stays: a collection under load need not look at it
    gc.set_threshold(*_COLLECTED_AFTER)


def log_to_stderr() -> None:
    """Let a server tell what it does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("workbench").addHandler(handler)
    logging.getLogger("workbench").setLevel(logging.INFO)
