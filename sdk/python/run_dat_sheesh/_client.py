"""The connection to a server. It alone knows the key and HTTP; what can be done with a VM is in `_vm`."""

import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import httpx
from httpx_sse import EventSource
from typing_extensions import Self

from . import _api
from ._errors import check
from ._vm import Vm, pairs, vm_path


class Client:
    """A server, and the key for it.

    The client owns its connections, not the VMs: `close`, or the end of a `with` block, leaves VMs as they are. It can be used
    by several threads at once.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, *, timeout: float = 600) -> None:
        """Connect when first asked for something.

        Args:
            url: Address of the server; the variable `RDS_URL` if absent, `http://127.0.0.1:3000` if that is not set.
            api_key: The key; the variable `RDS_API_KEY` if absent.
            timeout: Seconds for which the server may be silent before an `httpx.ReadTimeout`. A command is silent until it
                ends, a create until the VM runs, so it has to be more than either takes.

        Raises:
            ValueError: There is no key, or it is not one that can be sent.

        """
        key = os.environ.get("RDS_API_KEY", "") if api_key is None else api_key
        # Checked here, because the errors of what sends it would show it.
        if not key or not key.isascii() or not key.isprintable() or key != key.strip():
            raise ValueError("api_key or RDS_API_KEY must be a key, without white space around it")
        self._http = httpx.Client(
            base_url=url or os.environ.get("RDS_URL") or "http://127.0.0.1:3000",
            headers={"x-api-key": key},
            timeout=httpx.Timeout(timeout, connect=10),
            # The key would go along.
            follow_redirects=False,
            # As would it to a proxy that the environment names, which does not know this machine's addresses either.
            transport=httpx.HTTPTransport(),
        )

    def __enter__(self) -> Self:
        """Give the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create_vm(
        self,
        *,
        cpu: int = 1,
        mem_mb: int = 256,
        name: str | None = None,
        image_id: str | None = None,
        snapshot_id: str | None = None,
        disk_size_mb: int | None = None,
        limits: _api.LimitVm | None = None,
        labels: Mapping[str, str] | None = None,
        outbound_internet: bool = False,
        allow_ips: Sequence[str] = (),
        allow_domains: Sequence[str] = (),
        secret_env: Mapping[str, str] | None = None,
        peer_links: Sequence[_api.PeerLink] = (),
        ttl_seconds: int | None = None,
        idle_timeout_seconds: int | None = None,
        idle_action: _api.IdleAction | None = None,
    ) -> Vm:
        """Create a VM, and wait until it runs.

        It is the caller's, who deletes it: best with `with client.create_vm() as vm:`.

        Args:
            cpu: Virtual CPUs.
            mem_mb: Memory in MiB.
            name: A name for people, unique among VMs.
            image_id: The image to start from; the default image if absent.
            snapshot_id: A snapshot to start from. One of kind `vm` needs the `cpu` and `mem_mb` of its VM.
            disk_size_mb: Size of the writable disk in MiB; the server's default if absent.
            limits: How fast it may use its disk and its network, and how much of its memory it is to keep to.
            labels: Free labels.
            outbound_internet: Whether anything may leave the VM at all.
            allow_ips: IPv4 addresses or ranges that it may reach then.
            allow_domains: Names that it may reach then, such as `*.example.org`.
            secret_env: Environment of what runs in the VM, sealed at rest and never shown. Needs the server's `VM_SECRET_KEY`.
            peer_links: Providers whose SDKs the code in this VM may call.
            ttl_seconds: Seconds after which the server deletes the VM; never if absent.
            idle_timeout_seconds: Seconds without a call after which `idle_action` is done; never if absent.
            idle_action: `pause`, which is the default, or `delete`.

        Raises:
            RdsError: It could not be created. Nothing is left of it.

        """
        body = {
            "cpu": cpu,
            "memMb": mem_mb,
            "name": name,
            "imageId": image_id,
            "userOverlaySnapshotId": snapshot_id,
            "diskSizeMb": disk_size_mb,
            "limits": limits,
            "labels": dict(labels or {}),
            "outboundInternet": outbound_internet,
            "allowIps": allow_ips,
            "allowDomains": allow_domains,
            "secretEnv": pairs(secret_env),
            "peerLinks": peer_links,
            "ttlSeconds": ttl_seconds,
            "idleTimeoutSeconds": idle_timeout_seconds,
            "idleAction": idle_action,
        }
        return Vm(self, self.request("POST", "/v1/vms", json=body).json())

    def vm(self, vm_id: str) -> Vm:
        """Get the VM with this id. If there is none, that is an `RdsError` with status 404."""
        return Vm(self, self.request("GET", vm_path(vm_id)).json())

    def vms(self) -> list[Vm]:
        """List all VMs, oldest first."""
        return [Vm(self, data) for data in self.request("GET", "/v1/vms").json()]

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | bool] | None = None,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Ask for anything of the API, as its document at `/openapi.json` describes it.

        Args:
            method: Such as `GET`.
            path: Begins with `/`. Text of others in it has to be quoted, with `urllib.parse.quote(text, safe="")`.
            params: The query.
            json: A body that is written as JSON.
            content: A body of bytes instead; `headers` has to say of what type.
            headers: Further headers, such as `idempotency-key`.

        Returns:
            The reply, read whole: `.json()`, `.content`. A stream of events would not end.

        Raises:
            RdsError: The status is not 2xx. Redirects are not followed.

        """
        reply = self._http.request(method, _own(path), params=params, json=json, content=content, headers=headers)
        check(reply)
        return reply

    def _events(self, method: str, path: str, *, json: object) -> Generator[tuple[str, Any], None, None]:
        """Ask for a stream of events, each a name and its data. Closing the generator closes the connection."""
        with self._http.stream(method, _own(path), json=json) as reply:
            if not reply.is_success:
                reply.read()
                check(reply)
            for event in EventSource(reply).iter_sse():
                yield event.event, event.json()


def _own(path: str) -> str:
    """Refuse what would send the key to another server."""
    if not path.startswith("/"):
        raise ValueError("path must begin with /")
    return path
