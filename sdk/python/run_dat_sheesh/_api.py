# Made from docs/openapi.json: run `datamodel-codegen` in sdk/python, whose pyproject.toml says how.

from typing import Any, Literal, TypeAlias, TypedDict

from typing_extensions import NotRequired


class Account(TypedDict):
    email: str


class ActivityEvent(TypedDict):
    """Something that happened, as clients see it."""

    createdAt: str
    """RFC 3339, milliseconds, `Z`."""
    entityId: NotRequired[str | None]
    """Which one."""
    entityType: NotRequired[str | None]
    """What kind of thing it happened to."""
    id: str
    """UUID."""
    message: str
    """For people."""
    meta: NotRequired[dict[str, Any] | None]
    """The same parsed; in the event stream and what webhooks are sent only."""
    metaJson: NotRequired[str | None]
    """JSON text."""
    type: str
    """What kind of event it is."""


class AuditHead(TypedDict):
    """Where the log ends. Keep it elsewhere: it shows later whether anything before was changed or cut off."""

    hash: str
    """Hash of the last one; zeros without any."""
    records: int
    """Records in the log."""


class CallError(TypedDict):
    """The body of a failed call."""

    code: str
    """For programs; stable."""
    message: str
    """For people: the provider's own message, when its code threw."""
    name: NotRequired[str | None]
    """The thrown error's name, when the provider's code threw."""
    requestId: NotRequired[str | None]
    """Finds the cause of a failure of the server in its log."""
    rule: NotRequired[str | None]
    """The rule of the link's policy that refused the call."""


CallOutcome: TypeAlias = Literal["returned", "threw", "refused", "timed_out", "cancelled", "failed"]
"""
How a call ended: `refused` before the provider was entered, `failed` because the provider or its worker was not there
or went away.
"""


class CallResult(TypedDict):
    """The result of a call, in the form of the wire."""

    result: Any
    """What the provider's function returned."""


class Capacity(TypedDict):
    capacityBytes: int
    usedBytes: int


class ChangeWebhook(TypedDict):
    """Body of `PATCH /v1/admin/webhooks/{id}`. What is absent stays."""

    enabled: NotRequired[bool | None]
    """Whether events are sent. While a webhook is disabled nothing is kept for it; what waited before waits on."""
    eventTypes: NotRequired[list[str] | None]
    """Which events."""
    name: NotRequired[str | None]
    """For people."""
    rotateSecret: NotRequired[bool | None]
    """True to have another secret made."""
    secret: NotRequired[str | None]
    """Another secret. Deliveries that wait are signed with it, too."""
    url: NotRequired[str | None]
    """Where to."""


class Checksums(TypedDict):
    """SHA-256 in hexadecimal of what was uploaded. Files that were given in place have none."""

    kernel: NotRequired[str | None]
    modules: NotRequired[str | None]
    rootfs: NotRequired[str | None]


class Counts(TypedDict):
    activeVms: int
    """VMs that are RUNNING."""
    snapshots: int
    templates: int
    """Images that a VM can be made from."""


class Cpu(TypedDict):
    capacityCores: int
    usagePct: float
    """0 to 1."""
    usedCores: float


class CreateApiKey(TypedDict):
    expiresAt: NotRequired[str | None]
    """RFC 3339."""
    name: str


class CreateImage(TypedDict):
    description: NotRequired[str]
    name: str


class CreateWebhook(TypedDict):
    """Body of `POST /v1/admin/webhooks`."""

    enabled: NotRequired[bool | None]
    """True if absent."""
    eventTypes: list[str]
    """Kinds of events: `vm.created`, `vm.*` for all of VMs, or `*` for all. At most 64."""
    name: NotRequired[str | None]
    """For people; the URL's host if absent."""
    secret: NotRequired[str | None]
    """What deliveries are signed with: `whsec_` and 24 to 64 bytes in base64. The server makes one if absent."""
    url: str
    """An http or https URL, without a user and a password."""


class ErrorBody(TypedDict):
    """The body of every error."""

    code: str
    """For programs; stable."""
    message: str
    """For people."""
    requestId: NotRequired[str | None]
    """Finds the cause of an internal error in the server's log."""


class ExecLogEntry(TypedDict):
    """One run."""

    durationMs: int
    """How long the program ran in the guest, in milliseconds."""
    id: str
    """UUID."""
    input: Any
    """What was asked; of variables their names."""
    result: Any
    """
    What the program did: `exitCode`, `stdout`, `stderr`, `result`, `error`. Long texts are cut, and values beyond 64 KiB
    left out. Of a run that did not end in front of its client `outcome` says `cancelled` or `lost` instead of `exitCode`.
    """
    timestamp: str
    """When it began (RFC 3339)."""
    type: str
    """`exec`, `run-ts` or `run-js`."""


class ExecLogs(TypedDict):
    """Newest first."""

    entries: list[ExecLogEntry]
    """The entries."""
    hasMore: bool
    """Whether there are older ones."""


class ExecRequest(TypedDict):
    """Body of `POST /v1/vms/:id/exec` and `/exec/stream`."""

    cmd: str
    """A shell command line."""
    cwd: NotRequired[str | None]
    """Working directory; `/workspace` if absent."""
    env: NotRequired[dict[str, str] | None]
    """Variables of this call."""
    timeoutMs: NotRequired[float | None]
    """Time limit in milliseconds; 30000 if absent."""


class FileStat(TypedDict):
    """A file or directory. Symbolic links are reported, not followed."""

    mode: int
    """Permission bits."""
    modifiedAt: str
    """RFC 3339."""
    name: str
    size: int
    """Length in bytes; 0 for anything but a file."""
    type: str
    """`file`, `directory`, `symlink` or `other`."""


class Health(TypedDict):
    """That the server is well."""

    ok: bool
    """Always true."""


IdleAction: TypeAlias = Literal["pause", "delete"]
"""What is done with an idle VM."""


class LimitVm(TypedDict):
    """How fast a VM shall be allowed to use its disk and its network, and how much of its memory it shall keep to; what is absent has
    no limit.
    """

    diskBytesPerSecond: NotRequired[float | None]
    """Bytes a second that it reads from its writable disk and writes to it, an integer from 1048576 to 8000000000."""
    diskOpsPerSecond: NotRequired[float | None]
    """Reads and writes of that disk a second, an integer from 100 to 1000000."""
    memoryMb: NotRequired[float | None]
    """
    MiB of its memory that it is to keep to, an integer from 128 to its `memMb`. It leaves the rest alone until a program
    needs it.
    """
    networkBytesPerSecond: NotRequired[float | None]
    """Bytes a second that it sends, and as many that it receives, an integer from 16384 to 8000000000."""


class LoggedOut(TypedDict):
    ok: bool


class Login(TypedDict):
    email: str
    password: str


class NetworkView(TypedDict):
    """What a VM sent and received since it was started, as last looked at."""

    bytes: int
    """Bytes that passed, both ways."""
    dropped: int
    """Packets of the VM's that did not pass."""
    packets: int
    """Packets that passed, both ways."""


class Overview(TypedDict):
    counts: Counts
    cpu: Cpu
    memory: Capacity
    storage: Capacity


class PatchLink(TypedDict):
    """A change of a link; what is absent stays."""

    policy: NotRequired[Any]
    """The whole new policy; `{}` allows everything that the manifest declares."""
    sourceMode: NotRequired[str | None]
    """`hidden` or `mounted`."""


class PatchNetwork(TypedDict):
    """A change of what a VM may reach. What is absent stays."""

    allowDomains: NotRequired[list[str] | None]
    """Names that it may reach besides, such as `api.github.com` or `*.googleapis.com`."""
    allowIps: NotRequired[list[str] | None]
    """
    What it may reach then: IPv4 addresses or CIDR ranges, at most `MAX_ALLOW_IPS`. A private network needs an entry
    of its own.
    """
    outboundInternet: NotRequired[bool | None]
    """Whether anything may leave the VM at all."""


class PeerCall(TypedDict):
    """A call of a consumer's code."""

    alias: str
    """The provider's name in the calling VM."""
    args: NotRequired[list[Any] | None]
    """Empty if absent."""
    exportName: NotRequired[str | None]
    """`default` if absent."""
    modulePath: str
    """Absolute path of the module in the provider."""
    timeoutMs: NotRequired[int | None]
    """Time limit in milliseconds, at most 120000; 30000 if absent."""


class PeerLink(TypedDict):
    """A link to a provider VM."""

    alias: str
    """The provider's name in this VM: letters, digits, `_` and `-`."""
    policy: NotRequired[Any]
    """What the consumer may do with the provider; everything that its manifest declares, if absent."""
    sourceMode: NotRequired[str]
    """`hidden` (default): the consumer sees proxies. `mounted`: also a copy of the provider's files. A reply has it always."""
    vmId: str
    """The provider."""


class PendingCall(TypedDict):
    """A call that waits for a person."""

    alias: str
    """The alias it calls."""
    args: list[Any]
    """The arguments, so that a person can decide."""
    consumer: str
    """The VM whose code calls."""
    export: str
    """The export."""
    id: str
    """What an answer names."""
    module: str
    """The module, relative to `/workspace`."""
    provider: str
    """The VM behind the alias."""
    requestedAt: str
    """RFC 3339, milliseconds, `Z`."""


class RunReply(TypedDict):
    """What a program did."""

    error: NotRequired[Any]
    """What it gave to `result.error`, or its uncaught exception."""
    exitCode: int
    """Its exit status; 128 + signal if a signal ended it; -1 at the time limit."""
    result: NotRequired[Any]
    """The JSON value that it gave to `result.set`."""
    stderr: str
    """Its standard error, likewise."""
    stdout: str
    """Its standard output, at most 1,000,000 bytes; bytes that are no UTF-8 are replaced."""
    truncated: bool
    """Whether output was dropped for its size."""


class RunRequest(TypedDict):
    """Body of `POST /v1/vms/:id/run-ts` and `/run-js`. Either `code` or `path`; `path` wins."""

    allowNet: NotRequired[bool | None]
    """Whether the program may use the network (run-ts); the VM's `outboundInternet` if absent. The firewall applies."""
    args: NotRequired[list[str] | None]
    """Arguments of the program."""
    code: NotRequired[str | None]
    """The text of a module."""
    denoFlags: NotRequired[list[str] | None]
    """Further flags of `deno run` (run-ts)."""
    env: NotRequired[list[str] | None]
    """Variables of this call, each `NAME=value`."""
    nodeFlags: NotRequired[list[str] | None]
    """Further flags of `node` (run-js)."""
    path: NotRequired[str | None]
    """A file under `/workspace`; a relative path is relative to it."""
    timeoutMs: NotRequired[float | None]
    """Time limit in milliseconds; 30000 if absent."""


SeedStatus: TypeAlias = Literal["none", "building", "ready", "error"]
"""Whether there is a seed of the size that every image gets."""


class SetSecrets(TypedDict):
    """New secrets of a VM."""

    secretEnv: list[str]
    """All of them, each `NAME=value`; an empty list takes them away."""


Status: TypeAlias = SeedStatus | None


SnapshotKind: TypeAlias = Literal["user_overlay", "vm", "image_seed"]
"""What a snapshot is of."""


Kind: TypeAlias = SnapshotKind | None


class TakeSnapshot(TypedDict):
    """What to keep of a VM."""

    kind: NotRequired[Kind | None]


class TestDelivery(TypedDict):
    id: str
    """Of the delivery."""


Time: TypeAlias = str


class Timings(TypedDict):
    """How long each part of a start took, in milliseconds."""

    agentMs: NotRequired[float]
    """Until the agent's first answer."""
    bootMs: NotRequired[float]
    """Starting the virtual machine monitor, if the VM was booted."""
    configureMs: NotRequired[float]
    """Telling the guest who it is."""
    diskMs: NotRequired[float]
    """Making the writable disk and the initramfs."""
    networkMs: NotRequired[float]
    """Making the network interface and its rules."""
    peersMs: NotRequired[float]
    """Putting its peers in place."""
    queueMs: NotRequired[float]
    """Until it was its turn, and the image was looked up."""
    restoreMs: NotRequired[float]
    """Restoring the machine from a seed, if it was not booted."""
    totalMs: NotRequired[float]
    """All of the start."""


class VmLimits(TypedDict):
    """How fast a VM may use its disk and its network, and how much of its memory it is to keep to; what is absent has no limit."""

    diskBytesPerSecond: NotRequired[int | None]
    """Bytes a second that it reads from its writable disk and writes to it."""
    diskOpsPerSecond: NotRequired[int | None]
    """Reads and writes of that disk a second."""
    memoryMb: NotRequired[int | None]
    """MiB of its memory that it is to keep to. It leaves the rest alone until a program needs it."""
    networkBytesPerSecond: NotRequired[int | None]
    """Bytes a second that it sends, and as many that it receives."""


class VmLog(TypedDict):
    """The end of a log."""

    lines: list[str]
    """Its last lines, oldest first."""
    truncated: bool
    """Whether there are earlier lines."""
    type: str
    """The type that was asked for."""
    updatedAt: NotRequired[str | None]
    """When it was last written to (RFC 3339); absent if there is no such log."""


VmState: TypeAlias = Literal["CREATED", "STARTING", "RUNNING", "PAUSED", "STOPPING", "STOPPED", "ERROR"]
"""The state of a VM, as clients see it."""


class Webhook(TypedDict):
    """A place that events are sent to."""

    createdAt: str
    """RFC 3339, milliseconds, `Z`."""
    enabled: bool
    """Whether events are sent. A receiver that answers 410 (Gone) ends that."""
    eventTypes: list[str]
    """Which ones."""
    id: str
    """UUID."""
    name: str
    """For people."""
    url: str
    """Where to."""


class WebhookDelivery(TypedDict):
    """One event for one webhook."""

    attempts: int
    """How often it was tried."""
    createdAt: str
    """When it happened."""
    durationMs: NotRequired[int | None]
    """What that took."""
    error: NotRequired[str | None]
    """Why it did not succeed."""
    event: str
    """Kind of event."""
    id: str
    """UUID, the same in all attempts: the receiver sees it as `webhook-id`."""
    lastAttemptAt: NotRequired[str | None]
    """When it was tried last."""
    nextAttemptAt: NotRequired[str | None]
    """When it is tried next."""
    state: str
    """
    `waiting`, `delivered`, `failed` after the last attempt or since the receiver is gone, or `dropped` because too many
    waited.
    """
    status: NotRequired[int | None]
    """The HTTP status that came back."""


LastUsedAt: TypeAlias = Time | None


class ApiKey(TypedDict):
    """A key without its secret."""

    createdAt: Time
    expiresAt: NotRequired[Time | None]
    id: str
    lastUsedAt: NotRequired[LastUsedAt | None]
    name: str
    prefix: str
    revokedAt: NotRequired[Time | None]


class AuditCall(TypedDict):
    """What is recorded of a call."""

    alias: str
    """The alias that was called."""
    argsBytes: int
    """Bytes of the arguments as JSON."""
    consumer: str
    """Id of the calling VM."""
    durationUs: int
    """From the call's arrival to its answer, in microseconds."""
    export: str
    """Export as called."""
    module: str
    """Module as called."""
    outcome: CallOutcome
    provider: NotRequired[str]
    """Id of the VM behind the alias."""
    resultBytes: int
    """Bytes of the result as JSON."""
    rule: NotRequired[str]
    """The policy's rule that refused it or was warned about."""
    secretVersion: NotRequired[int]
    """Generation of the provider's secrets that it ran with."""
    strikes: int
    """Places where a secret was struck out of the answer."""
    time: str
    """When it came."""


class AuditEntry(AuditCall):
    """A peer call."""

    hash: str
    """Hash of its record, which seals all records before it too."""
    sequence: int
    """Its place in the log, from 0."""


class AuditPage(TypedDict):
    entries: list[AuditEntry]
    """Newest first."""
    hasMore: bool
    """Whether there are older ones."""


class CreateVm(TypedDict):
    """Body of `POST /v1/vms`. Unknown fields are ignored, as the public API does."""

    allowDomains: NotRequired[list[str]]
    """Names that the VM may reach besides, such as `api.github.com` or `*.googleapis.com`."""
    allowIps: list[str]
    """What the VM may reach: IPv4 addresses or CIDR ranges, at most `MAX_ALLOW_IPS`."""
    cpu: float
    """Number of virtual CPUs, an integer from 1 to `MAX_CPU`."""
    diskSizeMb: NotRequired[float | None]
    """Size of the writable disk in MiB, rounded up, at least 32; `OVERLAY_SIZE_BYTES` if absent."""
    idleAction: NotRequired[IdleAction]
    """What is done with an idle VM: `pause` (default) or `delete`."""
    idleTimeoutSeconds: NotRequired[float | None]
    """Seconds without a call into the VM or out of it after which `idleAction` is done."""
    imageId: NotRequired[str | None]
    """The image to start from; the default image if absent."""
    labels: NotRequired[dict[str, str]]
    """Free labels, at most 32, keys and values of at most 256 bytes."""
    limits: NotRequired[LimitVm]
    """How fast it may use its disk and its network, and how much of its memory it is to keep to."""
    memMb: float
    """Memory in MiB, an integer from 128 to `MAX_MEM_MB`."""
    name: NotRequired[str | None]
    """A name for people: 1 to 64 letters, digits, `.`, `_`, `-`; unique among live VMs."""
    outboundInternet: NotRequired[bool]
    """Whether anything may leave the VM at all."""
    peerLinks: NotRequired[list[PeerLink]]
    """Links to provider VMs, whose SDKs the code in this VM may call. At most 32; aliases are unique."""
    secretEnv: NotRequired[list[str]]
    """
    Environment of the VM's secrets, each `NAME=value`. Needs `VM_SECRET_KEY`. They are sealed at rest and given only
    to what runs in this VM.
    """
    snapshotId: NotRequired[str | None]
    """An older name of `userOverlaySnapshotId`, which goes before it."""
    ttlSeconds: NotRequired[float | None]
    """Seconds after which the VM is deleted, from its creation."""
    userOverlaySnapshotId: NotRequired[str | None]
    """A snapshot to start from: the disk is as that VM's was, and memory too if the snapshot has it."""


class CreatedApiKey(ApiKey):
    apiKey: str
    """The whole key. It is shown this once."""


class FileList(TypedDict):
    """The entries of a directory, sorted by name."""

    entries: list[FileStat]
    truncated: bool
    """Whether there are more than these."""


class ForkVm(TypedDict):
    """Body of `POST /v1/vms/:id/fork`."""

    count: NotRequired[float | None]
    """How many, from 1 to 100; 1 if absent."""
    limits: NotRequired[LimitVm]
    """How fast each fork may use its disk and its network, and how much of its memory it is to keep to. No limit is inherited."""
    peerLinks: NotRequired[list[PeerLink]]
    """Links of each fork to provider VMs. None is inherited."""
    secretEnv: NotRequired[list[str]]
    """Environment of the secrets of each fork, each `NAME=value`. None is inherited."""


class Image(TypedDict):
    """What VMs are made from."""

    baseRootfsBytes: NotRequired[int | None]
    """Length of the root filesystem."""
    checksums: Checksums
    createdAt: Time
    description: str
    id: str
    isDefault: bool
    """Whether a VM that names no image gets this one."""
    kernelFilename: NotRequired[str | None]
    kernelUploadedAt: NotRequired[Time | None]
    modulesFilename: NotRequired[str | None]
    modulesUploadedAt: NotRequired[Time | None]
    name: str
    rootfsFilename: NotRequired[str | None]
    rootfsUploadedAt: NotRequired[Time | None]
    seedError: NotRequired[str | None]
    """Why there is none."""
    seedSizeBytes: NotRequired[int | None]
    """What it takes on the server's disk."""
    seedSnapshotId: NotRequired[str | None]
    seedStatus: SeedStatus
    """How it is about the memory that VMs of this image start from."""
    seedUpdatedAt: NotRequired[Time | None]


class ShownWebhook(Webhook):
    secret: NotRequired[str | None]
    """What deliveries are signed with, if that is new. It is shown this once."""


class Snapshot(TypedDict):
    """What VMs start from."""

    baseSeedSnapshotId: NotRequired[str | None]
    """The seed that the VM had been started from, which may be gone. Nothing of it is needed."""
    cpu: int
    createdAt: Time
    """Of a seed that is not there: since when it is being made, or known to fail."""
    diskSizeMb: NotRequired[int | None]
    """Size of the disk in MiB."""
    error: NotRequired[str | None]
    """Why a seed could not be made."""
    frozenMs: NotRequired[float | None]
    """How long the VM could not write while it was taken, in milliseconds."""
    hasDisk: bool
    """Whether it holds a disk that belongs to its memory."""
    hasOverlay: bool
    """Whether it holds a VM's writable disk."""
    id: str
    imageId: str
    """The image that it belongs to."""
    kind: SnapshotKind
    memMb: int
    """MiB."""
    pausedMs: NotRequired[float | None]
    """How long the VM stood still while it was taken with its memory, in milliseconds."""
    sizeBytes: int
    """What it takes on the server's disk."""
    sourceVmId: NotRequired[str | None]
    """The VM that it was taken of, which may be gone."""
    status: NotRequired[Status | None]


class Vm(TypedDict):
    """A VM as clients see it."""

    allowDomains: list[str]
    """What it may reach by name."""
    allowIps: list[str]
    """What it may reach."""
    cpu: int
    """Virtual CPUs."""
    createdAt: str
    """RFC 3339, milliseconds, `Z`."""
    diskSizeMb: int
    """Size of its writable disk in MiB."""
    error: NotRequired[str | None]
    """Why it is in state ERROR, or stopped though nobody asked."""
    expiresAt: NotRequired[str | None]
    """When it will be deleted by itself."""
    guestIp: NotRequired[str | None]
    """Address of its `eth0`; absent where VMs have no network."""
    id: str
    """Lower-case UUID."""
    idleAction: NotRequired[IdleAction | None]
    idleTimeoutSeconds: NotRequired[int | None]
    """Its `idleTimeoutSeconds`."""
    imageId: str
    """The image it runs on."""
    labels: dict[str, str]
    """Its labels."""
    limits: NotRequired[VmLimits | None]
    memMb: int
    """Memory in MiB."""
    name: NotRequired[str | None]
    """Its name."""
    network: NotRequired[NetworkView | None]
    outboundInternet: bool
    """Whether anything may leave it."""
    peerLinks: list[PeerLink]
    """The providers it is linked to."""
    provisionMode: str
    """`boot` for every plain create, however the VM really came up; `snapshot` for a copy of another VM's memory."""
    startedFrom: NotRequired[str | None]
    """How it really came up the last time: `boot`, `seed`, `pool`, or `snapshot` for a copy of another VM's memory."""
    state: VmState
    """Where it is in its life."""
    timings: NotRequired[Timings | None]
    ttlSeconds: NotRequired[int | None]
    """Its `ttlSeconds`."""


class Forks(TypedDict):
    """The VMs that a fork made."""

    vms: list[Vm]
    """As many as were asked for."""
