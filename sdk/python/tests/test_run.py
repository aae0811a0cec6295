"""Running code in a VM."""

import time

import pytest

from run_dat_sheesh import Exit, Output, RdsError, Vm


def text(events: list[Output | Exit], kind: str) -> str:
    return "".join(event["text"] for event in events if event["type"] != "exit" and event["type"] == kind)


def test_a_command_answers_with_what_it_did(vm: Vm) -> None:
    reply = vm.exec("echo out; echo é >&2; exit 7")
    assert reply == {"exitCode": 7, "stdout": "out\n", "stderr": "é\n", "truncated": False}


def test_a_command_has_its_directory_and_variables(vm: Vm) -> None:
    reply = vm.exec('pwd; echo "$A"', cwd="/usr", env={"A": "b=c\nd"})
    assert reply["stdout"] == "/usr\nb=c\nd\n"
    assert vm.exec("pwd")["stdout"] == "/workspace\n"


def test_a_command_ends_at_its_time_limit(vm: Vm) -> None:
    reply = vm.exec("echo before; sleep 60", timeout_ms=1000)
    assert (reply["exitCode"], reply["stdout"]) == (-1, "before\n")


def test_what_is_no_command_is_refused(vm: Vm) -> None:
    with pytest.raises(RdsError) as caught:
        vm.exec(" ")
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    with pytest.raises(RdsError) as caught:
        next(vm.stream("true", env={"A B": "secret-value"}))
    assert caught.value.status == 400
    assert "secret-value" not in str(caught.value)


def test_output_comes_in_order_as_it_is_written(vm: Vm) -> None:
    events, came = [], []
    for event in vm.stream("echo one; sleep 0.5; echo err >&2; sleep 2; echo $A; pwd; exit 3", cwd="/", env={"A": "two"}):
        events.append(event)
        came.append(time.monotonic())
    assert [event["type"] for event in events][:2] == ["stdout", "stderr"]
    assert (text(events, "stdout"), text(events, "stderr")) == ("one\ntwo\n/\n", "err\n")
    assert events[-1] == {"type": "exit", "exitCode": 3, "timedOut": False, "truncated": False}
    assert came[-1] - came[0] > 1.5


def test_a_stream_is_whole(vm: Vm) -> None:
    # Line ends of Unicode and of other systems are no ends of an event.
    events = list(vm.stream(r"printf 'a\u2028b\u0085c\vd\re\n\nf'; head -c 3000000 /dev/zero | tr '\0' x"))
    assert text(events, "stdout") == "a\u2028b\u0085c\vd\re\n\nf" + 3_000_000 * "x"


def test_a_stream_tells_of_the_time_limit(vm: Vm) -> None:
    end = list(vm.stream("sleep 60", timeout_ms=1000))[-1]
    assert end == {"type": "exit", "exitCode": -1, "timedOut": True, "truncated": False}


def sleepers(vm: Vm, seconds: int) -> int:
    """Count what sleeps for so long in the VM."""
    # The brackets keep the command from finding itself.
    pattern = f"sleep [{seconds // 1000}]{seconds % 1000}"
    return int(vm.exec(f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '{pattern}'")["stdout"])


def wait_for_the_end(vm: Vm, seconds: int) -> None:
    begun = time.monotonic()
    while sleepers(vm, seconds):
        assert time.monotonic() - begun < 10, "it runs on"
        time.sleep(0.2)


def test_leaving_the_loop_kills_the_program(vm: Vm) -> None:
    for event in vm.stream("echo here; exec sleep 2231", timeout_ms=100_000):
        assert event == {"type": "stdout", "text": "here\n"}
        break
    wait_for_the_end(vm, 2231)


def test_closing_a_stream_kills_the_program(vm: Vm) -> None:
    stream = vm.stream("echo here; exec sleep 2232", timeout_ms=100_000)
    next(stream)
    assert sleepers(vm, 2232)
    stream.close()
    wait_for_the_end(vm, 2232)


def test_an_exception_in_the_loop_kills_the_program(vm: Vm) -> None:
    def fail() -> None:
        for _ in vm.stream("echo here; exec sleep 2233", timeout_ms=100_000):
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    wait_for_the_end(vm, 2233)


def test_typescript_gives_a_result(vm: Vm) -> None:
    code = "const n: number = 42; console.log('said'); result.set({ n, args: Deno.args, env: Deno.env.get('A') });"
    reply = vm.run_ts(code, args=["x", "y z"], env={"A": "b=c"}, allow_net=False, deno_flags=["--quiet"], timeout_ms=60_000)
    assert reply["result"] == {"n": 42, "args": ["x", "y z"], "env": "b=c"}
    assert (reply["exitCode"], reply["stdout"]) == (0, "said\n")
    assert "error" not in reply


def test_typescript_gives_an_error(vm: Vm) -> None:
    reply = vm.run_ts("throw new RangeError('thrown')", timeout_ms=60_000)
    assert reply["exitCode"] != 0
    assert reply["error"]["name"] == "RangeError"
    assert "result" not in reply


def test_programs_can_be_files(vm: Vm) -> None:
    vm.write_file("/workspace/run/main.ts", "result.set(Deno.cwd())")
    assert vm.run_ts(path="run/main.ts", timeout_ms=60_000)["result"] == "/workspace/run"
    vm.write_file("/workspace/run/main.js", "result.set(process.argv.slice(2))")
    assert vm.run_js(path="/workspace/run/main.js", args=["a"], timeout_ms=60_000)["result"] == ["a"]


def test_javascript_gives_a_result(vm: Vm) -> None:
    code = "result.set([process.env.A, process.execArgv])"
    reply = vm.run_js(code, env={"A": "b"}, node_flags=["--no-warnings"], timeout_ms=60_000)
    assert reply["result"][0] == "b"
    assert "--no-warnings" in reply["result"][1]
    assert vm.run_js("result.error('words')", timeout_ms=60_000)["error"]["message"] == "words"


def test_code_or_path_is_needed(vm: Vm) -> None:
    with pytest.raises(RdsError, match="code or path") as caught:
        vm.run_js()
    assert caught.value.status == 400


def test_a_name_cannot_smuggle_a_value(vm: Vm) -> None:
    with pytest.raises(ValueError, match="name of a variable") as caught:
        vm.run_ts("", env={"TOKEN=secret-value": ""})
    assert "secret-value" not in str(caught.value)
