"""What the run's callbacks cost: the throughput of model.fit with wb.callbacks(run) against none.

python benchmarks/tracking.py          # about three minutes on two cores
"""

import argparse
import contextlib
import io
from functools import partial
from typing import Any

from fit import BATCH, EPOCHS, X, Y, cnn, mlp, model
from harness import EpochSeconds, scratch_run, table, take_turns

import workbench as wb
from workbench.run.runs import Run


def fit(run: Run, layers: Any, steps: int, logged: bool) -> float:
    clock = EpochSeconds()
    callbacks = [*wb.callbacks(run), clock] if logged else [clock]
    with contextlib.redirect_stdout(io.StringIO()):
        train = wb.batches(run, (X, Y), BATCH)
        model(layers, steps).fit(train, epochs=EPOCHS, verbose=0, callbacks=callbacks, shuffle=False)
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    run = scratch_run()
    for name, layers, steps in (("MLP, one step an execution", mlp, 1), ("MLP, 32 steps", mlp, 32), ("CNN", cnn, 32)):
        contenders = {
            "no callbacks": partial(fit, run, layers, steps, False),
            "wb.callbacks(run)": partial(fit, run, layers, steps, True),
        }
        seconds = take_turns(contenders, rounds)
        base = seconds["no callbacks"]
        table(f"{name}: seconds an epoch, throughput", [(n, s, base / s) for n, s in seconds.items()])


if __name__ == "__main__":
    main()
