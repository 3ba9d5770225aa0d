"""One version of a model in its own process, in TensorFlow or in LiteRT.

model = open_model(Path("/models/digits/3"), prefer_tflite=False, threads=0, warmup=True)
model.call("serving_default", {"image": array}, ("digit",))
"""

import functools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workbench.operate.serve import signature as signatures
from workbench.operate.serve import warmup as warmups
from workbench.operate.serve.errors import CODES, ServingError, invalid
from workbench.operate.serve.protos import get_model_metadata_pb2
from workbench.operate.serve.wire import Arrays

Call = Callable[[str, Arrays, tuple[str, ...]], Arrays]
_LITERT = (Path("model.tflite"), Path("litert", "model.tflite"))  # where TensorFlow Serving has it, and the registry
_OPEN = 16  # interpreters of a .tflite, each for one shape of its inputs
_CALLABLES = 64  # of a session, each for some outputs of a signature; clients choose which
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4  # LiteRT's float32 differs from TensorFlow's by less; int8 does not


@dataclass(frozen=True)
class Model:
    """`definitions` is a SignatureDefMap, serialized. `call` takes the signature's name, its inputs and the outputs
    that are wanted. `note`: why it is not what was asked for, in words.
    """

    runtime: str
    definitions: bytes
    call: Call
    note: str = ""
    warmups: int = 0
    warmup_seconds: float = 0.0


def open_model(folder: Path, prefer_tflite: bool, threads: int, warmup: bool) -> Model:
    """Load the version, and let it answer its warm-up requests. Raises whatever that raises.

    `prefer_tflite`: LiteRT, if there is a .tflite, and if it answers the warm-up requests as the SavedModel does.
    """
    lite = next((folder / path for path in _LITERT if (folder / path).exists()), None) if prefer_tflite else None
    saved = (folder / "saved_model.pb").exists()
    try:
        requests = list(warmups.requests(folder)) if warmup or (lite and saved) else []
    except ServingError as error:
        raise _at_warmup(error) from error
    if not lite:
        model = _saved_model(folder, threads)
    elif not saved:
        model = _litert(lite, threads or 1)
    else:
        model = _proven(_litert(lite, threads or 1), _saved_model(folder, threads), requests)
    return _warmed(model, requests) if warmup else model


def _warmed(model: Model, requests: list[tuple[str, Arrays]]) -> Model:
    """The model, when it has answered the requests. Raises ServingError if it cannot."""
    found, started = signatures.parsed(model.definitions), time.perf_counter()
    try:
        for name, inputs in requests:
            if name not in found:
                raise invalid(f"no signature {name!r}")
            signatures.check(found[name], inputs, strict=False)
            model.call(name, inputs, ())
    except ServingError as error:
        raise _at_warmup(error) from error
    return replace(model, warmups=len(requests), warmup_seconds=time.perf_counter() - started)


def _at_warmup(error: ServingError) -> ServingError:
    return ServingError(error.code, f"{warmups.FILE}: {error.message}")


def _saved_model(folder: Path, threads: int) -> Model:
    """A session of TensorFlow 1's API: a call of it costs a third of a signature's, and TensorFlow 2's models have all
    that it needs.
    """
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it would advise the API of TensorFlow 2
    graph = tf.Graph()
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads)
    with graph.as_default(), _told():
        session = tf.compat.v1.Session(graph=graph, config=config)
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
    found = signatures.read(meta.signature_def)

    @functools.lru_cache(_CALLABLES)
    def prepared(name: str, outputs: tuple[str, ...]) -> tuple[Callable[..., Any], list[str], list[str]]:
        taken, given = list(found[name].inputs), list(outputs or found[name].outputs)
        definition = meta.signature_def[name]
        feeds = [definition.inputs[key].name for key in taken]
        fetches = [definition.outputs[key].name for key in given]
        return _callable(session, feeds, fetches), taken, given

    def call(name: str, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        with _told():
            run, taken, given = prepared(name, outputs)
            answers = run(*[inputs[key] for key in taken])
        return dict(zip(given, map(_array, answers), strict=True))

    return Model("TF", _definitions(meta.signature_def, found), call)


@contextmanager
def _told() -> Iterator[None]:
    """What TensorFlow refuses, with its code."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise ServingError(CODES.get(error.error_code, "UNKNOWN"), error.message.split("\n")[0]) from error
    except ValueError as error:
        raise invalid(str(error)) from error


def _array(answer: Any) -> np.ndarray[Any, Any]:
    """A tensor of a session's answer; one string alone comes as bytes, of which NumPy would make something else."""
    return np.array(answer, object) if isinstance(answer, bytes) else np.asarray(answer)


def _callable(session: Any, feeds: list[str], fetches: list[str]) -> Callable[..., Any]:
    """A call of the session for just these tensors. The public one checks each of them again, at twice the time, and
    does not pass the shapes that TensorFlow Serving passes; without the private one it will do.
    """
    from tensorflow.core.protobuf import config_pb2

    if not hasattr(session, "_make_callable_from_options"):
        return session.make_callable(fetches, feed_list=feeds)
    options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
    options.run_options.inter_op_thread_pool = -1  # operations run on the thread that calls
    return session._make_callable_from_options(options)


def _litert(file: Path, threads: int) -> Model:
    """The signature serving_default of a .tflite file. Interpreters are kept for the shapes that came last; rows are
    filled up to a power of two, so that there are few of these.
    """
    from ai_edge_litert.interpreter import Interpreter

    from workbench.exports.runtimes.litert import caller

    definitions = _described(Interpreter(str(file)))
    found = signatures.read(definitions)[signatures.DEFAULT]
    opened: OrderedDict[tuple[Any, ...], Callable[[Arrays], Arrays]] = OrderedDict()

    def run(inputs: Arrays) -> Arrays:
        shapes = tuple((key, array.shape) for key, array in inputs.items())
        if shapes not in opened:
            opened[shapes] = caller(file, threads)
        opened.move_to_end(shapes)
        if len(opened) > _OPEN:
            opened.popitem(last=False)
        try:
            return opened[shapes](inputs)
        except (RuntimeError, ValueError) as error:
            del opened[shapes]
            raise invalid(f"LiteRT: {(str(error).splitlines() or [''])[0]}") from error

    def call(name: str, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        rows = {len(array) if array.ndim else 0 for array in inputs.values()}
        number = rows.pop() if found.batches and len(rows) == 1 else 0
        fill = (1 << (number - 1).bit_length()) - number if number else 0
        if not fill:
            answers = run(inputs)
        else:
            answers = run({key: np.concatenate([a, np.repeat(a[-1:], fill, axis=0)]) for key, a in inputs.items()})
            if all(len(array) == number + fill for array in answers.values()):
                answers = {key: array[:number] for key, array in answers.items()}
            else:  # they are not rows after all
                answers = run(inputs)
        return {key: answers[key] for key in outputs or answers}

    return Model("LiteRT", _definitions(definitions, [found.name]), call)


def _proven(lite: Model, saved: Model, requests: list[tuple[str, Arrays]]) -> Model:
    """`lite` if it has all that the SavedModel has, and answers the requests as that does; else that, with a note."""
    try:
        if lost := signatures.parsed(saved.definitions).keys() - signatures.parsed(lite.definitions).keys():
            raise ValueError(f"it has no signature {', '.join(sorted(lost))}")
        if not requests:
            raise ValueError(f"there is no {warmups.FILE} to compare them on")
        for name, inputs in requests:
            right, found = saved.call(name, inputs, ()), lite.call(name, inputs, ())
            for key, array in right.items():
                if key not in found or not _alike(array, found[key]):
                    raise ValueError(f"its {key} is not the SavedModel's")
    except (ServingError, ValueError, KeyError) as error:
        return replace(saved, note=f"the .tflite is not used: {error}")
    return lite


def _alike(right: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> bool:
    if right.shape != found.shape or right.dtype != found.dtype:
        return False
    return (
        bool(np.allclose(right, found, _RELATIVE, _ABSOLUTE, equal_nan=True))
        if right.dtype.kind == "f"
        else bool(np.array_equal(right, found))
    )


def _described(interpreter: Any) -> dict[str, Any]:
    """The signature of a .tflite as a SignatureDef, by its name."""
    names = list(interpreter.get_signature_list())
    if signatures.DEFAULT not in names:
        raise invalid(f"the .tflite has the signatures {', '.join(names) or 'none'}; expected {signatures.DEFAULT}")
    definitions = get_model_metadata_pb2.SignatureDefMap()
    definition = definitions.signature_def[signatures.DEFAULT]
    definition.method_name = "tensorflow/serving/predict"
    runner = interpreter.get_signature_runner(signatures.DEFAULT)
    for side, details in (
        (definition.inputs, runner.get_input_details()),
        (definition.outputs, runner.get_output_details()),
    ):
        for key, tensor in details.items():
            side[key].name = tensor["name"]
            side[key].dtype = signatures.kind(np.dtype(tensor["dtype"]))
            sizes = tensor["shape_signature"] if len(tensor["shape_signature"]) else tensor["shape"]
            for size in sizes:
                side[key].tensor_shape.dim.add(size=int(size))
    return dict(definitions.signature_def)


def _definitions(definitions: Any, found: Iterable[str]) -> bytes:
    whole = get_model_metadata_pb2.SignatureDefMap()
    for name in found:
        whole.signature_def[name].CopyFrom(definitions[name])
    return whole.SerializeToString()
