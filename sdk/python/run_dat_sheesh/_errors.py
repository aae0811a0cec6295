"""What the server says went wrong."""

import httpx


class RdsError(Exception):
    """The server refused a request or could not fulfil it.

    A server that cannot be reached, or is silent for too long, is an `httpx.TransportError` instead.

    Attributes:
        status: Status of the HTTP reply; 502 also if the VM was lost after a stream had begun.
        code: For programs; stable, such as `not_found`. `unknown` if the reply was not an error of this API.
        message: For people.
        request_id: Finds the request in the server's log. `None` if the reply had none.

    """

    def __init__(self, status: int, code: str, message: str, request_id: str | None = None) -> None:
        super().__init__(status, code, message, request_id)
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        """Give what people want to know first, first."""
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.message} ({self.status} {self.code}{request})"


def check(reply: httpx.Response) -> None:
    """Raise an `RdsError` unless the reply, which has been read, is a success. A redirect is none."""
    if reply.is_success:
        return
    try:
        body = reply.json()
        code, message = str(body["code"]), str(body["message"])
    except (ValueError, TypeError, KeyError):
        code, message = "unknown", f"{reply.status_code} {reply.reason_phrase}"
    raise RdsError(reply.status_code, code, message, reply.headers.get("x-request-id"))
