"""Replies that a server of this project does not give, but that something between may, or a server that ends."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from run_dat_sheesh import Client, Exit, Output, RdsError

VM = '{"id": "11111111-2222-3333-4444-555555555555"}'
EXIT = 'event: exit\ndata: {"exitCode": 0, "timedOut": false, "truncated": false}\n\n'
Handler = BaseHTTPRequestHandler


@contextmanager
def answering(answer: Callable[[Handler], None]) -> Iterator[Client]:
    """A server that answers a GET with a VM, and a POST so."""

    class Answers(Handler):
        def do_GET(self) -> None:  # noqa: N802
            send(self, 200, VM)

        def do_POST(self) -> None:  # noqa: N802
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}", "key") as client:
                yield client
        finally:
            server.shutdown()


def send(handler: Handler, status: int, body: str, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body.encode())


@pytest.mark.parametrize("body", ["<html>", "[]", '"text"', "{}", '{"code": "x"}', ""])
def test_an_error_of_something_else_is_unknown(body: str) -> None:
    with answering(lambda handler: send(handler, 502, body, x_request_id="r1")) as client, pytest.raises(RdsError) as caught:
        client.create_vm()
    error = caught.value
    assert (error.status, error.code, error.message, error.request_id) == (502, "unknown", "502 Bad Gateway", "r1")


def test_a_redirect_is_an_error_and_not_followed() -> None:
    with answering(lambda handler: send(handler, 307, "", location="http://127.0.0.1:1/")) as client:
        with pytest.raises(RdsError, match="307 Temporary Redirect"):
            client.create_vm()
        with pytest.raises(RdsError, match="307 Temporary Redirect"):
            next(client.vm("x").stream("true"))


def streamed(text: str, piece: int = 1000) -> list[Output | Exit]:
    """Give the events of a stream that comes in pieces of so many bytes."""

    def answer(handler: Handler) -> None:
        send(handler, 200, "", content_type="text/event-stream")
        data = text.encode()
        for begin in range(0, len(data), piece):
            handler.wfile.write(data[begin : begin + piece])
            handler.wfile.flush()

    with answering(answer) as client:
        return list(client.vm("x").stream("true"))


@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_may_come_in_any_pieces(piece: int, end: str) -> None:
    text = ': comment\n\nevent: stdout\ndata: "é\u2028😀"\n\n:\n\nevent: later\ndata: {}\n\nevent:stderr\ndata:"b"\n\n'
    events = streamed((text + EXIT).replace("\n", end), piece)
    assert events == [
        {"type": "stdout", "text": "é\u2028😀"},
        {"type": "stderr", "text": "b"},
        {"type": "exit", "exitCode": 0, "timedOut": False, "truncated": False},
    ]


def test_data_may_have_several_lines() -> None:
    assert streamed(EXIT.replace('"exitCode": 0,', '"exitCode":\ndata: 0,'))[0]["type"] == "exit"


def test_a_vm_that_is_lost_is_an_error() -> None:
    with pytest.raises(RdsError, match="it is gone") as caught:
        streamed('event: error\ndata: {"message": "it is gone"}\n\n')
    assert (caught.value.status, caught.value.code) == (502, "bad_gateway")


@pytest.mark.parametrize("text", ["", 'event: stdout\ndata: "a"\n\n', EXIT[:-1]])
def test_a_stream_without_its_end_is_an_error(text: str) -> None:
    with pytest.raises(RdsError, match="ended before"):
        streamed(text)


def test_a_page_is_no_stream() -> None:
    with answering(lambda handler: send(handler, 200, "<html>", content_type="text/html")) as client:
        stream = client.vm("x").stream("true")
        with pytest.raises(httpx.TransportError):
            next(stream)
