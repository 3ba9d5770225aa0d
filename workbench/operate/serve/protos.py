"""TensorFlow's and TensorFlow Serving's messages, without TensorFlow.

    from workbench.operate.serve.protos import predict_pb2, tensor_pb2

The generated modules lie in the package `tensorflow`, whose own import takes seconds and 400 MB. They need nothing of
it, so here they are imported beside it, under their own names: a later `import tensorflow` finds and uses them.
"""

import importlib.util
import sys
from types import ModuleType


def _without_tensorflow() -> ModuleType:
    """A package that has tensorflow's modules and does none of its work."""
    package = ModuleType("tensorflow")
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None  # a dependency of the package
    package.__path__ = list(spec.submodule_search_locations or ())
    return package


_alone = "tensorflow" not in sys.modules
if _alone:
    sys.modules["tensorflow"] = _without_tensorflow()
try:
    from tensorflow.core.example import example_pb2, feature_pb2
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        input_pb2,
        model_management_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2_grpc,
        regression_pb2,
    )
    from tensorflow_serving.config import model_server_config_pb2
finally:
    if _alone:
        del sys.modules["tensorflow"]

__all__ = [
    "classification_pb2",
    "example_pb2",
    "feature_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
    "regression_pb2",
    "tensor_pb2",
    "tensor_shape_pb2",
    "types_pb2",
]
