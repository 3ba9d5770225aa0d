"""python -m workbench.operate.serve --rest_api_port=8501 --model_name=digits --model_base_path=/models/digits

It takes the flags of tensorflow_model_server; --help lists them.
"""

import sys

from workbench.errors import UsageError
from workbench.operate.serve import flags, server


def main() -> int:
    try:
        settings = flags.settings_from(sys.argv[1:])
        server.log_to_stderr()
        server.run(
            settings, lambda rest, grpc: print(f"listening: REST {rest}, gRPC {grpc}", file=sys.stderr, flush=True)
        )
    except UsageError as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 2
    return 0


def _started(rest: int | None, grpc: int | None) -> None:
    print(f"listening: REST {rest}, gRPC {grpc}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
