"""The commands that serve models. cli.py adds them to the command line."""

from pathlib import Path
from typing import Any

import click

from workbench.errors import UsageError

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--port", type=int, default=8501, show_default=True, help="Of REST; 0 for a free one.")
@click.option("--grpc-port", type=int, default=8500, show_default=True, help="Of gRPC; 0 for a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes for each version.")
@click.option(
    "--canary", type=click.FloatRange(0, 100), default=0, metavar="PERCENT", help="Share of the label canary."
)
@click.option("--litert", is_flag=True, help="Run a version's .tflite, if it answers as its SavedModel does.")
@click.option("--keys", type=_FILE, metavar="FILE", help="Who may ask; `workbench key` adds to it.")
@click.option("--tls", type=_FILE, metavar="FILE", help="Key and certificates, as an SSLConfig of TensorFlow Serving.")
@click.option("--access-log", type=_FILE, metavar="FILE", help="A line of JSON for each request; - is stdout.")
@click.option(
    "--log-requests", type=click.FloatRange(0, 1), default=0, metavar="SHARE", help="Keep this share of them."
)
def serve(names: tuple[str, ...], port: int, grpc_port: int, canary: float, log_requests: float, **given: Any) -> None:
    """Serve the registered models NAMES, or all, by TensorFlow Serving's REST and gRPC.

    Requests that name no version are for the one with the label stable. Labels that move are followed within a second;
    a version is loaded and warmed up before it takes over. The kept requests lie in outputs/serving. Ctrl-C ends it,
    after what is under way.
    """
    from workbench.operate import moves
    from workbench.operate.serve import server, text_protos
    from workbench.operate.serve.settings import Settings

    folder = moves.models_folder()
    served = _served(names)
    tls = text_protos.tls(given["tls"]) if given["tls"] else None
    settings = Settings(
        host=given["host"],
        port=grpc_port,
        rest_api_port=port,
        model_config_file=folder / "models.config",
        model_config_file_poll_wait_seconds=0.5,
        only=names,
        tls=tls,
        rest_tls=tls,
        prefer_tflite_model=given["litert"],
        workers=given["workers"],
        default_label="stable",
        canary=canary,
        api_keys=given["keys"],
        access_log=given["access_log"],
        gauges=folder.parent / "monitor",
        request_log=folder.parent / "serving" if log_requests else None,
        request_log_rate=log_requests,
    )

    def started(rest: int | None, grpc: int | None) -> None:
        scheme = "https" if tls else "http"
        print(
            f"serving {', '.join(served)}: {scheme}://{given['host']}:{rest}/v1/models/{served[0]}; gRPC {grpc}",
            flush=True,
        )

    server.log_to_stderr()
    server.run(settings, started)


@click.command()
@click.argument("file", type=_FILE)
@click.argument("name")
@click.option("--manage", is_flag=True, help="It may also read metrics and change what is served.")
def key(file: Path, name: str, manage: bool) -> None:
    """Print a new API key for NAME, and add its hash to FILE.

    The key is nowhere else: whoever loses it needs a new one. To take a key back, remove its line; a server that runs
    reads the file again when it changes.
    """
    from workbench import files
    from workbench.operate.serve import access

    secret, line = access.line(name, "manage" if manage else "predict")
    files.append_line(file, line, durably=True)
    print(secret)


def _served(names: tuple[str, ...]) -> list[str]:
    """The models that are asked for. Raises UsageError for those that are not there, or have no version to serve."""
    from workbench.operate import moves, registry

    for name in names:
        moves.find_model(name)
    served = [name for name in names or moves.models() if registry.labels(name)]
    if bare := sorted(set(names) - set(served)):
        raise UsageError(
            f"{bare[0]}: none of its versions has a label; `workbench promote {bare[0]} VERSION` gives one"
        )
    if not served:
        raise UsageError("no model has a version with a label; `workbench register RUN`, then `workbench promote`")
    return served


COMMANDS = (serve, key)
