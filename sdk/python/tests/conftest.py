"""What the tests share: the server that `RDS_URL` and `RDS_API_KEY` name, and one VM of it."""

import os
from collections.abc import Iterator

import pytest

from run_dat_sheesh import Client, Vm


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    missing = [name for name in ("RDS_URL", "RDS_API_KEY") if not os.environ.get(name)]
    assert not missing, f"{', '.join(missing)}: set them to a running server's address and key"
    with Client() as client:
        yield client


@pytest.fixture(scope="session")
def vm(client: Client) -> Iterator[Vm]:
    """Give one VM for all tests that leave it as they find it."""
    with client.create_vm() as vm:
        yield vm
