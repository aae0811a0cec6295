"""The life of a VM, its copies and its secrets."""

import pytest

from run_dat_sheesh import Client, RdsError, Vm


def test_a_vm_pauses_and_stops_and_starts(client: Client) -> None:
    with client.create_vm() as vm:
        vm.write_file("/workspace/kept", "kept")
        vm.pause()
        assert vm.data["state"] == "RUNNING"
        assert vm.refresh().data["state"] == "PAUSED"
        vm.resume()
        assert vm.refresh().data["state"] == "RUNNING"
        vm.stop()
        assert vm.refresh().data["state"] == "STOPPED"
        with pytest.raises(RdsError) as caught:
            vm.exec("true")
        assert (caught.value.status, caught.value.code) == (409, "conflict")
        vm.start()
        assert vm.read_file("/workspace/kept") == b"kept"


def test_a_snapshot_of_the_disk_starts_vms(client: Client, vm: Vm) -> None:
    vm.write_file("/workspace/kept", "disk")
    snapshot = vm.snapshot()
    try:
        assert (snapshot["kind"], snapshot.get("sourceVmId")) == ("user_overlay", vm.id)
        with client.create_vm(snapshot_id=snapshot["id"], mem_mb=320) as copy:
            assert copy.read_file("/workspace/kept") == b"disk"
            assert copy.id != vm.id
    finally:
        client.request("DELETE", f"/v1/snapshots/{snapshot['id']}")


def test_a_snapshot_of_the_memory_starts_vms(client: Client, vm: Vm) -> None:
    vm.exec("echo memory > /tmp/kept")
    snapshot = vm.snapshot("vm")
    try:
        with client.create_vm(snapshot_id=snapshot["id"]) as copy:
            assert copy.data["provisionMode"] == "snapshot"
            assert copy.exec("cat /tmp/kept")["stdout"] == "memory\n"
    finally:
        client.request("DELETE", f"/v1/snapshots/{snapshot['id']}")


def test_forks_go_on_by_themselves(client: Client, vm: Vm) -> None:
    vm.write_file("/workspace/who", "one")
    forks = vm.fork(2, limits={"diskOpsPerSecond": 5000}, secret_env={"TOKEN": "of the fork"})
    with forks[0] as first, forks[1] as second:
        assert len({vm.id, first.id, second.id}) == 3
        first.write_file("/workspace/who", "first")
        assert (vm.read_file("/workspace/who"), second.read_file("/workspace/who")) == (b"one", b"one")
        assert second.exec('echo "$TOKEN"')["stdout"] == "of the fork\n"
        assert first.data.get("limits") == {"diskOpsPerSecond": 5000}
    assert not {first.id, second.id} & {each.id for each in client.vms()}
    assert vm.exec('echo "$TOKEN"')["stdout"] == "\n"


def test_secrets_are_given_and_replaced(client: Client) -> None:
    with client.create_vm(secret_env={"TOKEN": "one=1"}) as vm:
        assert vm.exec('echo "$TOKEN"')["stdout"] == "one=1\n"
        vm.set_secrets({"OTHER": "two\nlines"})
        assert vm.exec('echo "$TOKEN$OTHER"')["stdout"] == "two\nlines\n"
        with pytest.raises(RdsError) as caught:
            vm.fork()
        assert (caught.value.status, caught.value.code) == (409, "conflict")
        vm.set_secrets({})
        assert vm.exec('echo "$OTHER"')["stdout"] == "\n"
        assert "one=1" not in str(vm.refresh().data)


MANIFEST = """{"sdk": {"name": "Sums", "description": "Adds."}, "modules": [{"path": "sdk/sums.ts", "exports": [{
  "name": "double", "description": "Doubles.",
  "params": [{"name": "n", "description": "A number.", "schema": {"type": "number"}}],
  "returns": {"description": "Twice as much.", "schema": {"type": "number"}},
  "examples": [{"description": "Two", "code": "await double(1);"}]
}]}]}"""


def test_links_to_peers_are_made_and_synced(client: Client) -> None:
    with client.create_vm() as provider:
        provider.write_file("/workspace/sdk/sums.ts", "export function double(n: number) { return 2 * n; }")
        provider.write_file("/workspace/.rds-peer/manifest.json", MANIFEST)
        with client.create_vm(peer_links=[{"alias": "sums", "vmId": provider.id}]) as vm:
            assert [link["alias"] for link in vm.data["peerLinks"]] == ["sums"]
            call = 'import { double } from "file:///workspace/peers/sums/proxy/sdk/sums.ts"; result.set(await double(21));'
            assert vm.run_ts(call, timeout_ms=60_000)["result"] == 42
            provider.write_file("/workspace/.rds-peer/manifest.json", MANIFEST.replace("Doubles.", "Doubles well."))
            vm.sync_peers()
            assert vm.exec("grep -r 'Doubles well' peers/sums")["exitCode"] == 0
