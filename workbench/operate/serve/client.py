"""Ask a server, from Python, with nothing but the standard library and NumPy.

wb.predict("digits", x_test[:3])                            # an array, a row for each of the three
wb.predict("penguins", {"mass": [4200.0], "island": ["Dream"]}, label="canary")
"""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from workbench import context
from workbench.errors import UsageError

URL, KEY = "WORKBENCH_SERVER", "WORKBENCH_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8501"
_SECONDS = 60


def predict(
    name: str, instances: Any, label: str | None = None, version: int | None = None, signature: str = ""
) -> np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]:
    """What the served model `name` answers to `instances`: an array, or arrays by output where it has several.

    instances: rows for a model with one input, as a list or an array; for named inputs a dict or a DataFrame of
      columns, which may be plain where the model takes rows of one value. Bytes are sent as such.
    label, version: which of its versions answers; by default the server's choice.
    The server is the one at WORKBENCH_SERVER, http://127.0.0.1:8501 without it; WORKBENCH_API_KEY is sent to it.

    Raises UsageError with the server's words when it refuses, and when there is no server.
    """
    which = f"/versions/{version}" if version is not None else f"/labels/{quote(label, safe='')}" if label else ""
    model = f"{quote(name, safe='')}{which}"
    columns = isinstance(instances, Mapping) or hasattr(instances, "columns")
    if columns:
        given = {str(key): _plain(instances[key]) for key in instances}
        if any(_is_flat(values) for values in given.values()):
            given = _shaped(given, _answer(name, f"{model}/metadata"), signature or "serving_default")
    else:
        given = _plain(instances)
    document = {"inputs" if columns else "instances": given, **({"signature_name": signature} if signature else {})}
    answer = _answer(name, f"{model}:predict", document)
    outputs = answer["outputs" if columns else "predictions"]
    several = isinstance(outputs, dict) or (outputs and isinstance(outputs[0], dict) and "b64" not in outputs[0])
    if not several:
        return np.array(_bytes(outputs))
    if columns:
        return {key: np.array(_bytes(value)) for key, value in outputs.items()}
    return {key: np.array([_bytes(row[key]) for row in outputs]) for key in outputs[0]}


def _answer(name: str, path: str, document: Any = None) -> Any:
    """What the server says at `path`, asked with a document if there is one."""
    server, key = context.variable(URL) or DEFAULT_URL, context.variable(KEY)
    request = urllib.request.Request(
        f"{server.rstrip('/')}/v1/models/{path}",
        None if document is None else json.dumps(document).encode(),
        {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise UsageError(f"{name}: {_said(error)}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{server}: no answer ({error}); `workbench serve {name}` starts a server") from error


def _shaped(columns: dict[str, Any], metadata: Any, signature: str) -> dict[str, Any]:
    """The columns, plain ones as [[value], ...] where the model takes rows of one value, as Keras' inputs mostly do."""
    inputs = metadata["metadata"]["signature_def"]["signature_def"].get(signature, {}).get("inputs", {})
    sizes = {name: [dim["size"] for dim in tensor["tensor_shape"].get("dim", [])] for name, tensor in inputs.items()}
    return {
        name: [[value] for value in values] if sizes.get(name, [])[1:] == ["1"] and _is_flat(values) else values
        for name, values in columns.items()
    }


def _is_flat(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and not isinstance(values[0], list)


def _plain(value: Any) -> Any:
    """Arrays, columns and bytes as JSON has them."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return [_bytes(item) for item in value] if isinstance(value, list) else value


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return f"{json.load(error)['error']} (HTTP {error.code})"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code} {error.reason}"
