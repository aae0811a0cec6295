"""Client of run-dat-sheesh: untrusted code in microVMs.

```python
from run_dat_sheesh import Client

with Client() as client, client.create_vm() as vm:
    print(vm.exec("uname -r")["stdout"])
```

Arguments have Python's names. Dictionaries that go in and come out have the names of the API's document (`exitCode`), and types
here for a type checker.
"""

from ._api import FileList, FileStat, LimitVm, PeerLink, RunReply, Snapshot
from ._api import Vm as VmData
from ._client import Client
from ._errors import RdsError
from ._vm import Exit, Output, Vm

__all__ = [
    "Client",
    "Exit",
    "FileList",
    "FileStat",
    "LimitVm",
    "Output",
    "PeerLink",
    "RdsError",
    "RunReply",
    "Snapshot",
    "Vm",
    "VmData",
]
