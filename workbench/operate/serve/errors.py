"""How a request fails: a code of gRPC and a sentence, in REST the HTTP status that TensorFlow Serving gives that code.

raise ServingError("NOT_FOUND", "digits has no version 9; loaded are 3 and 4")
"""

HTTP_STATUS = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}

# By number: google/rpc/code.proto, which TensorFlow's errors follow, too.
CODES = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
    16: "UNAUTHENTICATED",
}


class ServingError(Exception):
    """`code` is the name of a gRPC status code; `retry_after` seconds may mend an UNAVAILABLE."""

    def __init__(self, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def forget(self) -> None:
        """Let go of the frames that it came through. Those of a request would hold it, and it them, and all that the
        request had sent, until the garbage of such circles is collected.
        """
        self.__traceback__ = self.__context__ = self.__cause__ = None

    @property
    def http_status(self) -> int:
        return HTTP_STATUS[self.code]


def invalid(message: str) -> ServingError:
    """What most bad requests are."""
    return ServingError("INVALID_ARGUMENT", message)
