"""A VM, and what can be done with it. How the server is reached is the client's."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Literal, TypedDict
from urllib.parse import quote

from ._errors import RdsError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from typing_extensions import Self

    from . import _api
    from ._client import Client


class Output(TypedDict):
    """Something that a program wrote. It may be any part of a line, but no part of a character."""

    type: Literal["stdout", "stderr"]
    text: str


class Exit(TypedDict):
    """The end of a program, and the last event of its stream."""

    type: Literal["exit"]
    exitCode: int
    """Its exit status; 128 + signal if a signal ended it; -1 at the time limit."""
    timedOut: bool
    """Whether it was killed at its time limit."""
    truncated: bool
    """Whether output was dropped for its size."""


class Vm:
    """A VM of a server.

    `Client.create_vm`, `Client.vm`, `Client.vms` and `fork` give it. As a context manager it deletes the VM at the block's end,
    however that comes about; otherwise the VM lives on when this object is gone.

    Every method raises an `RdsError` if the server refuses or fails; its status is 404 when the VM is gone. Times are in
    milliseconds where the name says so. Paths of files are absolute and lie under `/workspace`. Code that runs, and files, need
    a VM that runs; one that is paused is woken by them.

    Attributes:
        data: What the server told about it when this object was made, or at the last `refresh`.

    """

    def __init__(self, client: Client, data: _api.Vm) -> None:
        """Only for the library: ask the client for VMs."""
        self._client = client
        self._path = vm_path(data["id"])
        self.data = data

    def __repr__(self) -> str:
        """Tell which VM it is."""
        return f"<Vm {self.id}>"

    def __enter__(self) -> Self:
        """Give the VM itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the VM, unless it is gone already."""
        try:
            self.delete()
        except RdsError as error:
            if error.status != 404:
                raise

    @property
    def id(self) -> str:
        """Its id, a UUID."""
        return self.data["id"]

    def refresh(self) -> Self:
        """Ask the server about it again, and keep the answer in `data`."""
        self.data = self._client.request("GET", self._path).json()
        return self

    # Running code

    def exec(
        self, cmd: str, *, cwd: str | None = None, env: Mapping[str, str] | None = None, timeout_ms: int | None = None
    ) -> _api.RunReply:
        """Run a shell command and wait for its end. One that fails is no error: look at `exitCode`.

        Args:
            cmd: The command line.
            cwd: Working directory; `/workspace` if absent.
            env: Variables of this command.
            timeout_ms: Time limit; 30 s if absent. All that the command started is killed then, and `exitCode` is -1.

        """
        return self._run("exec", _command(cmd, cwd, env, timeout_ms))

    def stream(
        self, cmd: str, *, cwd: str | None = None, env: Mapping[str, str] | None = None, timeout_ms: int | None = None
    ) -> Generator[Output | Exit, None, None]:
        """Run a shell command and give its output as it comes, and then its end.

        The command starts when the first event is asked for. Leaving the loop kills it. When you keep the generator in a
        variable, that happens with its `close`.

        Arguments are those of `exec`. If the VM is lost meanwhile, that is an `RdsError` with status 502.
        """
        events = self._client._events("POST", f"{self._path}/exec/stream", json=_command(cmd, cwd, env, timeout_ms))
        with closing(events):
            for name, data in events:
                if name == "stdout":
                    yield {"type": "stdout", "text": data}
                elif name == "stderr":
                    yield {"type": "stderr", "text": data}
                elif name == "exit":
                    yield {
                        "type": "exit",
                        "exitCode": data["exitCode"],
                        "timedOut": data["timedOut"],
                        "truncated": data["truncated"],
                    }
                    return
                elif name == "error":
                    raise RdsError(502, "bad_gateway", data["message"])
        raise RdsError(502, "bad_gateway", "the stream ended before the command")

    def run_ts(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
        allow_net: bool | None = None,
        deno_flags: Sequence[str] = (),
    ) -> _api.RunReply:
        """Run TypeScript under Deno and wait for its end.

        The reply has `result` if the program called `result.set`, and `error` if it called `result.error` or threw.

        Args:
            code: The text of a module. Either this or `path`.
            path: A file; a relative path is relative to `/workspace`.
            args: Arguments of the program.
            env: Variables of the program.
            timeout_ms: Time limit; 30 s if absent.
            allow_net: Whether it may use the VM's network; the VM's `outboundInternet` if absent.
            deno_flags: Further flags of `deno run`.

        """
        return self._run(
            "run-ts", {**_program(code, path, args, env, timeout_ms), "allowNet": allow_net, "denoFlags": deno_flags}
        )

    def run_js(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
        node_flags: Sequence[str] = (),
    ) -> _api.RunReply:
        """Run JavaScript under Node.js and wait for its end. Arguments and reply are those of `run_ts`.

        Its own is `node_flags`: further flags of `node`.
        """
        return self._run("run-js", {**_program(code, path, args, env, timeout_ms), "nodeFlags": node_flags})

    def _run(self, how: str, body: Mapping[str, object]) -> _api.RunReply:
        reply: _api.RunReply = self._client.request("POST", f"{self._path}/{how}", json=body).json()
        return reply

    # Files

    def read_file(self, path: str) -> bytes:
        """Read a file. If there is none, that is an `RdsError` with status 404."""
        return self._client.request("GET", f"{self._path}/files/content", params={"path": path}).content

    def write_file(self, path: str, content: bytes | str, *, executable: bool = False) -> None:
        """Write a file of at most 10 MiB; text as UTF-8. Its directories are made, and a file that is there is replaced."""
        content = content.encode() if isinstance(content, str) else content
        self._put("PUT", "content", {"path": path, "executable": executable}, content, "application/octet-stream")

    def list_files(self, path: str = "/workspace") -> _api.FileList:
        """List the entries of a directory, by name. `truncated` tells whether there are more."""
        reply: _api.FileList = self._client.request("GET", f"{self._path}/files/list", params={"path": path}).json()
        return reply

    def stat(self, path: str) -> _api.FileStat:
        """Look at a file or directory. Of a symbolic link it tells about the link."""
        reply: _api.FileStat = self._client.request("GET", f"{self._path}/files/stat", params={"path": path}).json()
        return reply

    def upload(self, tar_gz: bytes, dest: str = "/workspace") -> None:
        """Unpack an archive into a directory, which is made. At most 10 MiB, and 250 MiB unpacked.

        It is checked whole before anything is written.
        """
        self._put("POST", "upload", {"dest": dest}, tar_gz, "application/gzip")

    def download(self, path: str = "/workspace") -> bytes:
        """Get a directory or file as a tar.gz, with names that are relative to it."""
        return self._client.request("GET", f"{self._path}/files/download", params={"path": path}).content

    def _put(self, method: str, what: str, params: Mapping[str, str | bool], content: bytes, kind: str) -> None:
        headers = {"content-type": kind}
        self._client.request(method, f"{self._path}/files/{what}", params=params, content=content, headers=headers)

    # Copies

    def snapshot(self, kind: Literal["user_overlay", "vm"] = "user_overlay") -> _api.Snapshot:
        """Keep the VM as it is now: its disk (`user_overlay`), or its memory and disk (`vm`).

        A snapshot outlives its VM. `create_vm(snapshot_id=…)` starts from it; `client.request("DELETE", "/v1/snapshots/…")`
        deletes it. A VM that has had secrets since it was started, or has peers, has no snapshot of its memory: status 409.
        """
        reply: _api.Snapshot = self._client.request("POST", f"{self._path}/snapshots", json={"kind": kind}).json()
        return reply

    def fork(
        self,
        count: int = 1,
        *,
        limits: _api.LimitVm | None = None,
        secret_env: Mapping[str, str] | None = None,
        peer_links: Sequence[_api.PeerLink] = (),
    ) -> list[Vm]:
        """Copy the running VM, from 1 to 100 times. Its programs go on in each copy, and in the VM itself.

        The copies are the caller's, who deletes them. Limits, secrets and links are those that are given here: none is taken
        over. A VM that has had secrets since it was started, or has peers, is not copied: status 409.
        """
        body = {"count": count, "limits": limits, "secretEnv": pairs(secret_env), "peerLinks": peer_links}
        forks: _api.Forks = self._client.request("POST", f"{self._path}/fork", json=body).json()
        return [Vm(self._client, data) for data in forks["vms"]]

    # Secrets and peers

    def set_secrets(self, secret_env: Mapping[str, str]) -> None:
        """Replace all its secrets; an empty mapping takes them away. Programs that run keep the old ones."""
        self._client.request("PUT", f"{self._path}/secrets", json={"secretEnv": pairs(secret_env)})

    def sync_peers(self) -> None:
        """Read its providers' manifests again, and replace the proxies that its code sees."""
        self._post("peers/sync")

    # Life. None of these changes `data`: `refresh` does.

    def pause(self) -> None:
        """Let it stand still in memory. Refused with status 409 while a call into it or out of it is under way."""
        self._post("pause")

    def resume(self) -> None:
        """Let it go on after a pause."""
        self._post("resume")

    def stop(self) -> None:
        """Shut it down. Its disk is kept."""
        self._post("stop")

    def start(self) -> None:
        """Start it after a stop, and wait until it runs."""
        self._post("start")

    def delete(self) -> None:
        """Delete it, in any state. Nothing of it is left but its snapshots."""
        self._client.request("DELETE", self._path)

    def _post(self, what: str) -> None:
        self._client.request("POST", f"{self._path}/{what}")


def vm_path(vm_id: str) -> str:
    """Give the path of a VM, whose id may be any text."""
    # `.` and `..` would be a path's, which `quote` leaves alone.
    return f"/v1/vms/{quote(vm_id, safe='').replace('.', '%2E')}"


def pairs(env: Mapping[str, str] | None) -> list[str]:
    """Give variables as the server wants them. An error shows none: what is meant as a name may hold a value."""
    if any("=" in name for name in env or ()):
        raise ValueError("the name of a variable has a =")
    return [f"{name}={value}" for name, value in (env or {}).items()]


def _command(cmd: str, cwd: str | None, env: Mapping[str, str] | None, timeout_ms: int | None) -> dict[str, object]:
    return {"cmd": cmd, "cwd": cwd, "env": dict(env or {}), "timeoutMs": timeout_ms}


def _program(
    code: str | None, path: str | None, args: Sequence[str], env: Mapping[str, str] | None, timeout_ms: int | None
) -> dict[str, object]:
    return {"code": code, "path": path, "args": args, "env": pairs(env), "timeoutMs": timeout_ms}
