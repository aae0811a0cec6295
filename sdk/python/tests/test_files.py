"""Files of a VM."""

import io
import tarfile

import pytest

from run_dat_sheesh import RdsError, Vm


def test_bytes_come_back_as_they_went(vm: Vm) -> None:
    content = bytes(range(256)) * 5000
    vm.write_file("/workspace/f/deep/é file&x=y.bin", content)
    assert vm.read_file("/workspace/f/deep/é file&x=y.bin") == content
    vm.write_file("/workspace/f/deep/é file&x=y.bin", b"")
    assert vm.read_file("/workspace/f/deep/é file&x=y.bin") == b""


def test_text_and_programs_can_be_written(vm: Vm) -> None:
    vm.write_file("/workspace/f/run.sh", "#!/bin/sh\necho é\n", executable=True)
    assert vm.exec("f/run.sh")["stdout"] == "é\n"
    assert vm.stat("/workspace/f/run.sh")["mode"] & 0o111
    vm.write_file("/workspace/f/plain", "x")
    assert not vm.stat("/workspace/f/plain")["mode"] & 0o111


def test_a_directory_is_listed_and_looked_at(vm: Vm) -> None:
    vm.exec("mkdir -p l/dir && printf abc > l/a && ln -s a l/link")
    found = vm.list_files("/workspace/l")
    assert [(entry["name"], entry["type"]) for entry in found["entries"]] == [
        ("a", "file"),
        ("dir", "directory"),
        ("link", "symlink"),
    ]
    assert not found["truncated"]
    assert "l" in [entry["name"] for entry in vm.list_files()["entries"]]
    stat = vm.stat("/workspace/l/a")
    assert (stat["name"], stat["type"], stat["size"]) == ("a", "file", 3)


def test_what_is_not_there_is_a_404(vm: Vm) -> None:
    for look in (vm.read_file, vm.stat, vm.list_files, vm.download):
        with pytest.raises(RdsError) as caught:
            look("/workspace/none/at/all")
        assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_an_archive_goes_in_and_comes_out(vm: Vm) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("sub/file")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"\0\xff\r\n"))
    vm.upload(packed.getvalue(), "/workspace/up")
    assert vm.read_file("/workspace/up/sub/file") == b"\0\xff\r\n"
    with tarfile.open(fileobj=io.BytesIO(vm.download("/workspace/up"))) as archive:
        member = archive.extractfile("sub/file")
        assert member
        assert member.read() == b"\0\xff\r\n"
    with pytest.raises(RdsError) as caught:
        vm.upload(b"no archive")
    assert caught.value.status == 400
