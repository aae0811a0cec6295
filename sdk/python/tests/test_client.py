"""The client: its server, its key, and the VMs it gives."""

import os
import traceback

import httpx
import pytest

from run_dat_sheesh import Client, RdsError, Vm


def test_a_vm_is_as_it_was_asked_for(client: Client) -> None:
    limits = {"diskOpsPerSecond": 5000.0}
    with client.create_vm(
        mem_mb=192,
        name="py-asked",
        disk_size_mb=64,
        limits={"diskOpsPerSecond": 5000},
        labels={"a": "b"},
        ttl_seconds=900,
        idle_timeout_seconds=600,
        idle_action="delete",
    ) as vm:
        data = client.vm(vm.id).data
        assert data["state"] == "RUNNING"
        assert (data["cpu"], data["memMb"], data["diskSizeMb"], data.get("name")) == (1, 192, 64, "py-asked")
        assert (data["labels"], data["outboundInternet"], data["allowIps"]) == ({"a": "b"}, False, [])
        assert (data.get("ttlSeconds"), data.get("idleTimeoutSeconds"), data.get("idleAction")) == (900, 600, "delete")
        assert data.get("limits") == limits


def test_vms_are_found_and_listed(client: Client, vm: Vm) -> None:
    found = client.vm(vm.id)
    assert (found.id, found.refresh().data["createdAt"]) == (vm.id, vm.data["createdAt"])
    assert vm.id in [each.id for each in client.vms()]
    assert repr(vm) == f"<Vm {vm.id}>"


@pytest.mark.parametrize("vm_id", ["11111111-2222-3333-4444-555555555555", ".", "..", "../snapshots", "a?b#c", "é /"])
def test_a_vm_that_is_not_there_is_an_error(client: Client, vm_id: str) -> None:
    with pytest.raises(RdsError, match="not found") as caught:
        client.vm(vm_id)
    error = caught.value
    assert (error.status, error.code) == (404, "not_found")
    assert error.request_id
    assert f"404 not_found, request {error.request_id}" in str(error)


def test_the_end_of_a_block_deletes_the_vm_also_on_an_exception(client: Client) -> None:
    with pytest.raises(LookupError, match="mine"), client.create_vm() as vm:
        raise LookupError("mine")
    with pytest.raises(RdsError) as caught:
        vm.refresh()
    assert caught.value.status == 404


def test_a_block_may_delete_its_vm_itself(client: Client) -> None:
    with client.create_vm() as vm:
        vm.delete()
    with pytest.raises(RdsError, match="404"):
        vm.delete()


def test_a_create_that_is_refused_says_why(client: Client) -> None:
    with pytest.raises(RdsError, match="memMb") as caught:
        client.create_vm(mem_mb=1)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")


def test_everything_else_goes_through_one_door(client: Client, vm: Vm) -> None:
    vm.exec("echo logged")
    logs = client.request("GET", f"/v1/vms/{vm.id}/exec-logs", params={"limit": 1, "type": "exec"}).json()
    assert logs["entries"][0]["input"]["cmd"] == "echo logged"
    assert client.request("GET", "/healthz").status_code == 200
    with pytest.raises(ValueError, match="begin with /"):
        client.request("GET", "http://127.0.0.1:1/v1/vms")


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    url, key = os.environ["RDS_URL"], os.environ["RDS_API_KEY"]
    monkeypatch.setenv("RDS_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("RDS_API_KEY")
    with Client(url, key) as given:
        assert isinstance(given.vms(), list)
    with pytest.raises(ValueError, match="RDS_API_KEY"):
        Client(url)


def test_a_proxy_of_the_environment_does_not_get_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Client() as given:
        assert isinstance(given.vms(), list)


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def test_a_wrong_key_is_an_error_that_does_not_show_it(client: Client, vm: Vm) -> None:
    with Client(os.environ["RDS_URL"], "wrong-key-4711") as wrong:
        with pytest.raises(RdsError) as caught:
            wrong.vms()
        assert (caught.value.status, caught.value.code) == (401, "unauthorized")
        with pytest.raises(RdsError) as streamed:
            next(Vm(wrong, vm.data).stream("true"))
        assert streamed.value.status == 401
        assert "4711" not in shown(caught.value) + shown(streamed.value) + repr(wrong) + str(wrong) + repr(Vm(wrong, vm.data))
    assert os.environ["RDS_API_KEY"] not in repr(client) + repr(vm)


@pytest.mark.parametrize("key", ["", "key-4711\n", " key-4711", "key-4711\r\nx: y", "kéy-4711"])
def test_a_key_that_cannot_be_sent_is_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="must be a key") as caught:
        Client("http://127.0.0.1:1", key)
    # The traceback quotes this test's source, but no values.
    assert "4711" not in repr(caught.value)


def test_a_server_that_is_not_there_is_an_error_of_the_http_library() -> None:
    with Client("http://127.0.0.1:1", "key-4711") as nobody, pytest.raises(httpx.ConnectError) as caught:
        nobody.vms()
    assert "4711" not in str(caught.value) + repr(caught.value) + repr(caught.value.request)
