"""The warm-up requests of a version: what TensorFlow Serving would ask it before it takes over.

for signature, inputs in requests(Path("/models/digits/3")):
    model.call(signature, inputs, ())
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from workbench.operate.serve import examples, tensors
from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.protos import prediction_log_pb2
from workbench.operate.serve.signature import DEFAULT, strings
from workbench.operate.serve.wire import Arrays

FILE = Path("assets.extra", "tf_serving_warmup_requests")
_MOST = 1000


def requests(folder: Path) -> Iterator[tuple[str, Arrays]]:
    """Names of signatures, and inputs; none without the file. Raises ServingError for what TensorFlow Serving refuses:
    more than 1000, a file that is damaged or ends too soon, and calls of a session.
    """
    for number, record in enumerate(_records(folder / FILE)):
        if number == _MOST:
            raise invalid(f"there are more than {_MOST} requests; expected that many at most")
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError:
            raise invalid(f"record {number} is no PredictionLog") from None
        yield from _asked(log)


def _asked(log: Any) -> Iterator[tuple[str, Arrays]]:
    kind = log.WhichOneof("log_type")
    if kind == "session_run_log":
        raise ServingError("UNIMPLEMENTED", "a record is a session_run_log; expected predict, classify or regress")
    if kind == "predict_log":
        request = log.predict_log.request
        yield _name(request), {key: tensors.to_array(value) for key, value in request.inputs.items()}
    elif kind in ("classify_log", "regress_log"):
        request = getattr(log, kind).request
        yield _name(request), _of_examples(request.input)
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        for task in request.tasks:
            yield _name(task), _of_examples(request.input)


def _name(request: Any) -> str:
    return request.model_spec.signature_name or DEFAULT


def _of_examples(given: Any) -> Arrays:
    return {"inputs": strings(examples.from_input(given))}


def _records(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it would advise tf.data, which starts threads and an eager context
    try:
        yield from tf.compat.v1.io.tf_record_iterator(str(path))
    except tf.errors.DataLossError as error:
        raise ServingError("DATA_LOSS", f"this is no whole TFRecord file: {error.message}") from error
