"""The example of the README."""

import re
from pathlib import Path

import pytest

from run_dat_sheesh import Client

README = Path(__file__).parents[1] / "README.md"


def test_the_example_does_what_it_says(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    before = {vm.id for vm in client.vms()}
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert example
    exec(compile(example[1], README, "exec"), {})  # noqa: S102
    said = capsys.readouterr().out
    assert said.startswith("{'exitCode': 3, 'stdout': ")
    assert "}\n1\n2\n3\n042\n404 not_found\n[{" in said
    assert {vm.id for vm in client.vms()} == before
