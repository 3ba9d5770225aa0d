"""The process of one worker, started by `workbench run --workers N`: `python -m workbench.worker`."""

import sys

from workbench.errors import NotebookError, UsageError
from workbench.run.workers import take_part
from workbench.terminal import Progress


def main() -> None:
    progress = Progress()
    try:
        take_part(progress)
    except NotebookError:
        sys.exit(1)  # the launcher says what the notebook says
    except UsageError as error:
        print(f"workbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        progress.close()


if __name__ == "__main__":
    main()
