"""One version of a model in its own process, in TensorFlow or in LiteRT.

model = open_model(Path("/models/digits/3"), prefer_tflite=False, threads=0, warmup=True)
model.call("serving_default", {"image": array}, ("digit",))
"""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.operate.serve import signature as signatures
from workbench.operate.serve import tensors
from workbench.operate.serve.errors import CODES, ServingError, invalid
from workbench.operate.serve.protos import get_model_metadata_pb2, prediction_log_pb2
from workbench.operate.serve.signature import Signature

Arrays = dict[str, np.ndarray[Any, Any]]
Call = Callable[[str, Arrays, tuple[str, ...]], Arrays]
WARMUP = Path("assets.extra", "tf_serving_warmup_requests")
_LITERT = (Path("model.tflite"), Path("litert", "model.tflite"))  # where TensorFlow Serving has it, and the registry
_MOST_WARMUPS = 1000
_OPEN = 16  # interpreters of a .tflite, each for one shape of its inputs
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
    requests = list(_warmup_requests(folder)) if warmup else []
    if lite and not saved:
        model = _litert(lite, threads or 1)
    elif lite:
        model = _proven(
            _litert(lite, threads or 1), lambda: _saved_model(folder, threads), list(_warmup_requests(folder))
        )
    else:
        model = _saved_model(folder, threads)
    started = time.perf_counter()
    for name, inputs in requests:
        model.call(name, inputs, ())
    return Model(model.runtime, model.definitions, model.call, model.note, len(requests), time.perf_counter() - started)


def _saved_model(folder: Path, threads: int) -> Model:
    """A session of TensorFlow 1's API: a call of it costs a third of a signature's, and TensorFlow 2's models have all
    that it needs.
    """
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it would advise the API of TensorFlow 2
    graph = tf.Graph()
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads)
    with graph.as_default():
        session = tf.compat.v1.Session(graph=graph, config=config)
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
    found = signatures.read(meta.signature_def)
    calls: dict[tuple[str, tuple[str, ...]], tuple[Callable[..., Any], tuple[str, ...], tuple[str, ...]]] = {}

    def call(name: str, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        if (name, outputs) not in calls:
            taken, given = tuple(found[name].inputs), outputs or tuple(found[name].outputs)
            definition = meta.signature_def[name]
            feeds = [definition.inputs[key].name for key in taken]
            fetches = [definition.outputs[key].name for key in given]
            calls[name, outputs] = (_callable(session, feeds, fetches), taken, given)
        run, taken, given = calls[name, outputs]
        try:
            answers = run(*[inputs[key] for key in taken])
        except tf.errors.OpError as error:
            raise ServingError(CODES.get(error.error_code, "UNKNOWN"), error.message.split("\n")[0]) from error
        except ValueError as error:
            raise invalid(str(error)) from error
        return dict(zip(given, map(np.asarray, answers), strict=True))

    return Model("TF", _definitions(meta.signature_def, found), call)


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
    """A .tflite file. Interpreters are kept for the shapes that came last; rows are filled up to a power of two, so
    that there are few of these.
    """
    from ai_edge_litert.interpreter import Interpreter

    from workbench.exports.runtimes.litert import caller

    definitions = _described(Interpreter(str(file)))
    found = signatures.read(definitions)
    opened: OrderedDict[tuple[Any, ...], Callable[[Arrays], Arrays]] = OrderedDict()

    def call(name: str, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        rows = {len(array) if array.ndim else 0 for array in inputs.values()}
        number = rows.pop() if found[name].batches and len(rows) == 1 else 0
        if number:
            fill = (1 << (number - 1).bit_length()) - number
            inputs = {
                key: np.concatenate([a, np.repeat(a[-1:], fill, axis=0)]) if fill else a for key, a in inputs.items()
            }
        shapes = tuple((key, array.shape) for key, array in inputs.items())
        if shapes not in opened:
            opened[shapes] = caller(file, threads)
        opened.move_to_end(shapes)
        if len(opened) > _OPEN:
            opened.popitem(last=False)
        try:
            answers = opened[shapes](inputs)
        except (RuntimeError, ValueError) as error:
            del opened[shapes]
            raise invalid(f"LiteRT: {str(error).splitlines()[0]}") from error
        return {key: answers[key][:number] if number else answers[key] for key in outputs or answers}

    return Model("LiteRT", _definitions(definitions, found), call)


def _proven(lite: Model, open_saved: Callable[[], Model], requests: list[tuple[str, Arrays]]) -> Model:
    """`lite` if it answers the requests as the SavedModel does; else that, with a note."""
    saved = open_saved()
    try:
        if not requests:
            raise ValueError(f"there is no {WARMUP} to compare them on")
        for name, inputs in requests:
            right, found = saved.call(name, inputs, ()), lite.call(name, inputs, ())
            for key, array in right.items():
                if key not in found or not _alike(array, found[key]):
                    raise ValueError(f"its {key} is not the SavedModel's")
    except (ServingError, ValueError, KeyError) as error:
        return Model(saved.runtime, saved.definitions, saved.call, f"the .tflite is not used: {error}")
    return lite


def _alike(right: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> bool:
    if right.shape != found.shape or right.dtype != found.dtype:
        return False
    return (
        bool(np.allclose(right, found, _RELATIVE, _ABSOLUTE))
        if right.dtype.kind == "f"
        else bool(np.array_equal(right, found))
    )


def _warmup_requests(folder: Path) -> Iterator[tuple[str, Arrays]]:
    from tensorboard.compat.tensorflow_stub.errors import OutOfRangeError
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    if not (folder / WARMUP).exists():
        return
    records = PyRecordReader_New(str(folder / WARMUP))
    for _ in itertools.repeat(None, _MOST_WARMUPS):
        try:
            records.GetNext()
        except OutOfRangeError:
            return
        log = prediction_log_pb2.PredictionLog.FromString(records.record())
        request = getattr(log, log.WhichOneof("log_type") or "predict_log").request
        name = request.model_spec.signature_name or signatures.DEFAULT
        if hasattr(request, "inputs"):
            yield name, {key: tensors.to_array(value) for key, value in request.inputs.items()}


def _described(interpreter: Any) -> dict[str, Any]:
    """The signatures of a .tflite as SignatureDefs."""
    definitions = get_model_metadata_pb2.SignatureDefMap()
    for name in interpreter.get_signature_list():
        definition = definitions.signature_def[name]
        definition.method_name = "tensorflow/serving/predict"
        runner = interpreter.get_signature_runner(name)
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


def _definitions(definitions: Any, found: dict[str, Signature]) -> bytes:
    whole = get_model_metadata_pb2.SignatureDefMap()
    for name in found:
        whole.signature_def[name].CopyFrom(definitions[name])
    return whole.SerializeToString()
