"""Workbench: from a notebook to a production model, with Keras and TensorFlow.

    import workbench as wb

    run = wb.start_run("digits", globals())
    strategy = wb.strategy()
    train = wb.batches(run, (x_train, y_train), batch_size)
    with strategy.scope():
        model = ...
    wb.fit(run, model, train, epochs=epochs)
    wb.export(run, model, sample=x_test[:256])
    wb.finish_run(run, metrics)

The same cells run in JupyterLab, as the batch job `workbench run NOTEBOOK`, and on many workers with `--workers N`.
"""

import importlib
from typing import TYPE_CHECKING, Any

# The table of contents. A name is imported when it is first used, so that `import workbench` costs nothing and the
# commands that only read files never load TensorFlow.
_CONTENTS = {
    "Run": "workbench.run.runs",
    "start_run": "workbench.run.runs",
    "finish_run": "workbench.run.runs",
    "find_runs": "workbench.run.runs",
    "read_params": "workbench.run.params",
    "form": "workbench.run.form",
    "data": "workbench.run.fetch",
    "Secret": "workbench.run.secret",
    "read_secret": "workbench.run.secret",
    "run_notebook": "workbench.run.launch",
    "tensorboard": "workbench.run.tensorboard",
    "compare": "workbench.run.compare",
    "strategy": "workbench.train.distribute",
    "batches": "workbench.train.data",
    "fit": "workbench.train.fit",
    "callbacks": "workbench.train.track",
    "checkpoint": "workbench.train.checkpoint",
    "show": "workbench.train.show",
    "export": "workbench.exports.artefacts",
    "verify": "workbench.exports.verify",
    "register": "workbench.operate.registry",
    "versions": "workbench.operate.registry",
    "promote": "workbench.operate.registry",
    "rollback": "workbench.operate.registry",
    "load_model": "workbench.operate.foreign.load",
    "predict": "workbench.operate.serve.client",
    "check": "workbench.operate.quality.check",
    "monitor": "workbench.operate.monitor.monitor",
}

__all__ = list(_CONTENTS)

if TYPE_CHECKING:
    from workbench.exports.artefacts import export
    from workbench.exports.verify import verify
    from workbench.operate.foreign.load import load_model
    from workbench.operate.monitor.monitor import monitor
    from workbench.operate.quality.check import check
    from workbench.operate.registry import promote, register, rollback, versions
    from workbench.operate.serve.client import predict
    from workbench.run.compare import compare
    from workbench.run.fetch import data
    from workbench.run.form import form
    from workbench.run.launch import run_notebook
    from workbench.run.params import read_params
    from workbench.run.runs import Run, find_runs, finish_run, start_run
    from workbench.run.secret import Secret, read_secret
    from workbench.run.tensorboard import tensorboard
    from workbench.train.checkpoint import checkpoint
    from workbench.train.data import batches
    from workbench.train.distribute import strategy
    from workbench.train.fit import fit
    from workbench.train.show import show
    from workbench.train.track import callbacks


def __getattr__(name: str) -> Any:
    if name not in _CONTENTS:
        raise AttributeError(f"workbench has no {name!r}; its names are {', '.join(_CONTENTS)}")
    return getattr(importlib.import_module(_CONTENTS[name]), name)


def __dir__() -> list[str]:
    return __all__
