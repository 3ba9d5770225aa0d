"""The verbs of the protocol, whichever way a request came: arrays in, arrays out.

    version = service.find(Target("digits", label="stable"))
    signature = version.signature("")                                    # serving_default
    answers = await service.predict(version, signature, {"image": array})

Between `find` and the call there must be no await: a version that nobody waits for may be taken away.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from workbench.operate.serve import signature as signatures
from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.request_log import RequestLog
from workbench.operate.serve.signature import Signature

Arrays = dict[str, np.ndarray[Any, Any]]
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


@dataclass(frozen=True)
class Target:
    """Whom a request is for: a version, a label, or whichever is the default."""

    name: str
    version: int | None = None
    label: str | None = None
    sticky: str | None = None  # requests with the same go the same way, if there is a canary


class Version(Protocol):
    """A loaded version; versions.py makes them."""

    name: str
    number: int
    signatures: dict[str, Signature]
    definitions: bytes  # a SignatureDefMap, as GetModelMetadata answers it

    def signature(self, name: str) -> Signature:
        """Empty: serving_default. Raises ServingError, FAILED_PRECONDITION, for one that it has not."""

    async def run(
        self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], timeout: float | None
    ) -> Arrays:
        """The answers, all or those of `outputs`. Raises ServingError."""


class Versions(Protocol):
    """What is loaded."""

    def find(self, target: Target) -> Version:
        """Raises ServingError: INVALID_ARGUMENT for an unknown label, NOT_FOUND for the rest."""


@dataclass(frozen=True)
class State:
    """A version's state, as TensorFlow Serving names it, and what went wrong."""

    version: int
    state: str  # START, LOADING, AVAILABLE, UNLOADING, END
    code: str = "OK"
    message: str = ""


class Management(Protocol):
    """What versions.py tells of all models."""

    def states(self, target: Target) -> list[State]:
        """Raises ServingError, NOT_FOUND."""

    def ready(self) -> bool:
        """Whether every model can answer."""


class Reloading(Management, Protocol):
    """And does about them."""

    async def configure(self, config: Any) -> None:
        """Serve what this ModelServerConfig lists, and nothing else. Raises ServingError."""


class Service:
    def __init__(self, versions: Versions, metrics: Metrics, strict: bool, log: RequestLog | None = None) -> None:
        self.versions, self.metrics = versions, metrics
        self._strict, self._log = strict, log

    def find(self, target: Target) -> Version:
        return self.versions.find(target)

    async def predict(
        self,
        version: Version,
        signature: Signature,
        inputs: Arrays,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Arrays:
        """What the signature answers to the inputs. `timeout` in seconds. Raises ServingError."""
        started, code = time.perf_counter(), "OK"
        try:
            signatures.check(signature, inputs, outputs, self._strict)
            answers = await version.run(signature, inputs, tuple(outputs), timeout)
        except ServingError as error:
            code = error.code
            raise
        except asyncio.CancelledError:  # the client has gone
            code = "CANCELLED"
            raise
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            self.metrics.version(version.name, version.number, code, time.perf_counter() - started)
        if self._log:
            self._log.offer(version.name, version.number, signature.name, inputs, answers)
        return answers

    async def classify(
        self, version: Version, signature: Signature, examples: Sequence[bytes], timeout: float | None = None
    ) -> list[list[tuple[str, float]]]:
        """The classes and scores of each serialized tf.Example."""
        outputs = await self._of_examples(version, signature, examples, ("classes", "scores"), timeout)
        classes, scores = outputs.get("classes"), outputs.get("scores")
        for name, wanted, kind in (("classes", "string", object), ("scores", "float32", np.float32)):
            if name in outputs and outputs[name].dtype != kind:
                raise invalid(
                    f"output {name} of signature {signature.name} has type {outputs[name].dtype}; expected {wanted}"
                )
        for name, array in outputs.items():
            if array.ndim != 2 or len(array) != len(examples):
                raise invalid(
                    f"output {name} of signature {signature.name} has shape {list(array.shape)}; "
                    f"expected [{len(examples)}, number of classes]"
                )
        shape = next(iter(outputs.values())).shape
        if any(array.shape != shape for array in outputs.values()):
            raise invalid(f"classes and scores of signature {signature.name} differ in shape")
        texts = np.full(shape, "", object).tolist() if classes is None else _decoded(classes).tolist()
        numbers = np.zeros(shape).tolist() if scores is None else scores.tolist()
        return [list(zip(*row, strict=True)) for row in zip(texts, numbers, strict=True)]

    async def regress(
        self, version: Version, signature: Signature, examples: Sequence[bytes], timeout: float | None = None
    ) -> list[float]:
        """The value of each serialized tf.Example."""
        outputs = await self._of_examples(version, signature, examples, ("outputs",), timeout)
        values = outputs["outputs"]
        if values.dtype != np.float32 or values.shape not in ((len(examples),), (len(examples), 1)):
            raise invalid(
                f"output outputs of signature {signature.name} is {values.dtype} of shape {list(values.shape)}; "
                f"expected float32 of shape [{len(examples)}] or [{len(examples)}, 1]"
            )
        return values.ravel().tolist()

    async def _of_examples(
        self,
        version: Version,
        signature: Signature,
        examples: Sequence[bytes],
        known: tuple[str, ...],
        timeout: float | None,
    ) -> Arrays:
        if list(signature.inputs) != ["inputs"]:
            raise invalid(f"signature {signature.name} takes {', '.join(signature.inputs)}; expected inputs alone")
        outputs = tuple(name for name in known if name in signature.outputs)
        if not outputs or len(signature.outputs) > len(known):
            found = ", ".join(signature.outputs)
            raise invalid(f"signature {signature.name} has the outputs {found}; expected {' and '.join(known)}")
        if not examples:
            raise invalid("no examples; expected one or more")
        self.metrics.examples(version.name, len(examples))
        return await self.predict(version, signature, {"inputs": signatures.strings(examples)}, outputs, timeout)


def _decoded(texts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bytes as text; what is no UTF-8 is replaced, as JSON and the messages have no room for it."""
    return np.vectorize(lambda text: text.decode(errors="replace"), otypes=[object])(texts)


def named(signature: Mapping[str, Signature], name: str, version: str) -> Signature:
    """One of the signatures. Raises ServingError for another name."""
    found = signature.get(name or signatures.DEFAULT)
    if not found:
        known = ", ".join(signature) or "none"
        raise ServingError(
            "FAILED_PRECONDITION", f"{version} has no signature {name or signatures.DEFAULT!r}; it has {known}"
        )
    return found
