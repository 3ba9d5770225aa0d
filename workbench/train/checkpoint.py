"""Training that can be killed anywhere and goes on to the same bits: in `wb.fit` by itself, in a loop of your own by

    checkpoint = wb.checkpoint(run, model, optimizer, loss_metric)      # all that training changes
    for epoch in checkpoint.epochs(epochs):                              # from where a killed run has stopped
        for batch in checkpoint.steps(train):                            # the strategy's share of each batch
            train_step(batch)
        log(epoch, loss_metric.result())

The state is kept of batch runs, which `workbench resume RUN` takes up again. Of several workers the chief keeps it,
with what each of them has alone; they agree about once a second on what to do after which step.
"""

import io
import itertools
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from workbench import context, files
from workbench.errors import UsageError
from workbench.run import provenance
from workbench.run.runs import STATE, Run, update_record
from workbench.train import callback_state, data, state
from workbench.train.collective import (
    broadcast,
    components,
    described,
    differing,
    each_gets_its_share,
    gather,
    worker,
)
from workbench.train.stop import REQUESTS, Requests, raise_for

SAVE_SECONDS = 15.0  # between two states within an epoch
_MEET_SECONDS = 1.0  # between two words among workers
_SHARE = 0.05  # of its time, at most, training waits for states

_trainings: dict[Path, Iterator[int]] = {}  # how many trainings each run has begun in this process


class Checkpoint:
    """The state of one training in a run: kept, found again, and agreed on with the other workers."""

    def __init__(
        self,
        run: Run,
        parts: Sequence[Any] | None,
        strategy: tf.distribute.Strategy,
        save_seconds: float = SAVE_SECONDS,
    ) -> None:
        """parts: all that training changes; None keeps no state, and only lets training be ended."""
        self.run, self.strategy, self.save_seconds = run, strategy, save_seconds
        self.place = worker(strategy)
        owned = list(_variables(parts or ()).values())
        self.variables = [variable for variable, _ in owned]
        self.alone = [index for index, (_, in_step) in enumerate(owned) if not in_step]
        self.objects = [part for part in parts or () if callback_state.has_state(part)]
        self.name = str(next(_trainings.setdefault(run.path, itertools.count())))
        self.epoch, self.step = 0, 0  # where training goes on
        self.facts: dict[str, Any] = {}  # what else its state says
        self.arrays: dict[str, np.ndarray] = {}
        self.writer: state.Writer | None = None
        self.kept = parts is not None
        self.requests = Requests(run)
        self.boundaries, self.next_meeting, self.steps_apart = 0, 0, 1
        self.met = self.saved = time.monotonic()
        self.cost = 0.0
        if self.kept:
            update_record(run, code=provenance.imported_code(context.project_root()))
            self._find()

    # --- from the disk ---------------------------------------------------------------------------------------------

    @property
    def found(self) -> bool:
        """Whether training goes on from a state."""
        return bool(self.facts)

    def _find(self) -> None:
        """Read the newest state of this training, on the chief, and let every worker have it."""
        known = state.read(self.run.path / STATE, self.name) if self.place.is_chief else None
        if self.place.count > 1:
            content = broadcast(self.strategy, _pack(*known) if known else b"")
            known = _unpack(content) if content else None
        if known:
            self.facts, self.arrays = known
            self.epoch, self.step = self.facts["epoch"], self.facts["step"]
            self._check()

    def _check(self) -> None:
        pairs = itertools.zip_longest(self.facts["variables"], map(_spec, self.variables))
        if changed := [f"{before} has become {now}" for before, now in pairs if before != now]:
            raise UsageError(
                f"the state in {self.run.path / STATE} is of other variables: {changed[0]}. Build the model as "
                "it was, or start a new run."
            )
        replicas = self.strategy.num_replicas_in_sync
        if self.facts["replicas"] != replicas:
            raise UsageError(
                f"the run was trained on {self.facts['replicas']} replicas, now there are {replicas}; "
                "resume it on as many, or start a new run."
            )

    def restore(self) -> None:
        """Give every variable, and Python's and NumPy's generators of random numbers, what the state holds."""
        first = self.place.index * (self.strategy.num_replicas_in_sync // self.place.count)
        for index, variable in enumerate(self.variables):
            for replica, component in enumerate(components(self.strategy, variable), first):
                own = self.arrays.get(f"{index}.{replica}", self.arrays[f"{index}"])
                component.assign(state.as_dtype(own, component.dtype.as_numpy_dtype))
        callback_state.restore(self.objects, self.facts["objects"], self.arrays)
        version, words, gauss = self.facts["python_random"]
        random.setstate((version, tuple(words), gauss))
        kind, position, has_gauss, cached = self.facts["numpy_random"]
        np.random.set_state((kind, self.arrays["numpy_random"], position, has_gauss, cached))
        if self.place.is_chief:
            files.write_text(self.run.path / "metrics.jsonl", self.facts["metrics"])

    # --- to the disk -----------------------------------------------------------------------------------------------

    def save(self, epoch: int, step: int, **facts: Any) -> None:
        """Keep the state after `step` steps of `epoch`. Every worker calls it; only what must be is done at once."""
        if not self.kept:
            return
        started = time.monotonic()
        arrays = self._values()
        objects = callback_state.capture(self.objects, arrays)
        kind, words, *numpy_random = np.random.get_state()
        arrays["numpy_random"] = words
        metrics = self.run.path / "metrics.jsonl"
        facts |= {
            "epoch": epoch,
            "step": step,
            "replicas": self.strategy.num_replicas_in_sync,
            "variables": [_spec(variable) for variable in self.variables],
            "objects": objects,
            "python_random": random.getstate(),
            "numpy_random": [kind, *numpy_random],
            "metrics": metrics.read_text(encoding="utf-8") if metrics.exists() else "",
        }
        if self.place.is_chief:
            self.writer = self.writer or state.Writer(self.run.path / STATE, self.name)
            self.writer.put(facts, arrays)
        self.saved = time.monotonic()
        self.cost = self.saved - started

    def close(self) -> None:
        """Wait until the last state is on the disk."""
        if self.writer:
            self.writer.close()
            self.writer = None

    def _values(self) -> dict[str, Any]:
        """Each variable's tensor by its number; and by number and replica, where replicas differ.

        The tensors are the variables' own memory, which training cannot change while it is held.
        """
        tensors = [components(self.strategy, variable)[0].read_value() for variable in self.variables]
        arrays: dict[str, Any] = {f"{index}": tensor for index, tensor in enumerate(tensors)}
        own = differing(self.strategy, [self.variables[index] for index in self.alone])
        for position, replicas in own.items():
            arrays |= {f"{self.alone[position]}.{replica}": array for replica, array in enumerate(replicas)}
        return arrays

    # --- between two steps -----------------------------------------------------------------------------------------

    def boundary(self, epoch: int, step: int | None) -> None:
        """To call between any two steps: saves when it is time, and ends training when somebody has asked for that.

        step: how many steps of the epoch are done; None within validation, where nothing is saved.

        Raises StopRequested, KeyboardInterrupt or SystemExit(143), in every worker after the same step, and for the
        last two with the state saved.
        """
        self.boundaries += 1
        if self.boundaries < self.next_meeting:
            return
        now = time.monotonic()
        due = self.kept and now - self.saved > max(self.save_seconds, self.cost / _SHARE)
        request = self.requests.pending()
        if self.place.count > 1:
            pace = (now - self.met) / self.steps_apart
            words = [json.loads(part) for part in gather(self.strategy, json.dumps([request, due, pace]).encode())]
            request = max((word[0] for word in words), key=REQUESTS.index)
            due = words[0][1]  # the chief's clock counts
            self.steps_apart = max(1, min(1000, int(_MEET_SECONDS / max(word[2] for word in words))))
            self.next_meeting = self.boundaries + self.steps_apart
            self.met = time.monotonic()
        ends = request in ("SIGINT", "SIGTERM")
        if step and (due or ends):  # after an epoch its state has been saved already
            self.save(epoch, step)
        if ends:
            self.close()
        raise_for(request)

    # --- a loop of one's own ---------------------------------------------------------------------------------------

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs that are still to be done of `count`, counted from 0; after each the state is kept."""
        with self.requests:
            for epoch in range(self.epoch, count):
                self.epoch = epoch
                yield epoch
                self.epoch, self.step = epoch + 1, 0
                self.save(epoch + 1, 0)
            self.close()

    def steps(self, train: tf.data.Dataset) -> Iterator[Any]:
        """This epoch's batches that are still to be done, as the strategy distributes them.

        `step` is how many of the epoch have been done before the present one. A file STOP in the run raises
        StopRequested here, Ctrl-C KeyboardInterrupt and SIGTERM SystemExit, the last two with the state saved.
        """
        data.set_epoch(self.run, self.epoch)
        if self.step:
            self.restore()  # what a loop sets to zero at the start of an epoch, too
        with each_gets_its_share(self.strategy, train):
            left = self.strategy.experimental_distribute_dataset(train.skip(self.step))
        for batch in left:
            self.boundary(self.epoch, self.step)
            yield batch
            self.step += 1
        self.boundary(self.epoch, self.step)


def checkpoint(run: Run, *parts: Any, save_seconds: float = SAVE_SECONDS) -> Checkpoint:
    """Keep the state of a training loop of your own in `run`, or go on from where a killed run has stopped.

    parts: all that training changes: models, optimizers (built), metrics, tf.Variables, and whatever has `get_state`
      and `set_state`.
    save_seconds: between two states within an epoch. There is one after each epoch, too.

    Call it in the strategy's scope when all variables exist. Raises UsageError for a part without variables, or whose
    variables are not those of the state.
    """
    kept = context.batch_run() is not None  # nobody could resume another
    strategy = tf.distribute.get_strategy()
    place = context.cluster()
    if place and worker(strategy).count != len(place.workers):
        raise UsageError(
            f"checkpoint: called outside the scope of the strategy, so that each of {len(place.workers)} workers would "
            "take itself for the only one; call it in `with strategy.scope():`"
        )
    made = Checkpoint(run, parts if kept else None, strategy, save_seconds)
    update_record(run, strategy=described(strategy))
    if made.found:
        made.restore()
        print(f"goes on after epoch {made.epoch}, step {made.step}")
    return made


def _variables(parts: Sequence[Any]) -> dict[int, tuple[Any, bool]]:
    """All variables of the parts, and whether the replicas have the same value of each by the way they are trained."""
    found: dict[int, tuple[Any, bool]] = {}
    for part in parts:
        own = [part] if isinstance(part, tf.Variable | keras.Variable) else getattr(part, "variables", None)
        if not (own or callback_state.has_state(part)) or not getattr(part, "built", True):
            raise UsageError(
                f"checkpoint: {part!r} has no variables; expected a built model, optimizer or metric, a tf.Variable, "
                "or an object with get_state and set_state. An optimizer gets its own by "
                "optimizer.build(model.trainable_variables)."
            )
        for variable in own or ():
            trained = isinstance(variable, keras.Variable) and variable.trainable
            found[id(variable)] = (variable, trained or isinstance(part, keras.optimizers.Optimizer))
    return found


def _spec(variable: Any) -> str:
    dtype = variable.dtype if isinstance(variable.dtype, str) else variable.dtype.name
    return f"{getattr(variable, 'path', variable.name)} {dtype} {tuple(variable.shape)}"


def _pack(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """For the way between workers."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, facts=np.array(json.dumps(facts)), **{f"a{n}": a for n, a in arrays.items()})
    return buffer.getvalue()


def _unpack(content: bytes) -> state.State:
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return json.loads(str(found["facts"])), {name[1:]: found[name] for name in found.files if name != "facts"}
