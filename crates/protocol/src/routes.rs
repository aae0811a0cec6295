//! Paths of the agent's HTTP/2 interface. All bodies are JSON unless the item says otherwise.

/// `GET` → [`crate::guest::Health`].
pub const HEALTH: &str = "/v1/health";

/// `POST` [`crate::guest::Configure`] → [`crate::guest::Configured`]. Accepted once; 409 afterwards.
pub const CONFIGURE: &str = "/v1/configure";

/// `POST` → 204 when what [`CONFIGURE`] does and what starts a program was done once, for nobody, so that it is fast the
/// next time. All of it is undone but what it wrote to the disk, which is not mounted: the manager replaces its content.
/// 409 after [`CONFIGURE`].
pub const REHEARSE: &str = "/v1/rehearse";

/// `POST` [`crate::guest::Configure`] → [`crate::guest::Configured`]. Makes a copy of a VM, which was configured before it
/// was copied, a VM of its own: programs go on from here, with another host name, machine id and random source, other secrets and
/// no peers. The disk has the size that it had. 409 if the guest was never configured.
pub const RENAME: &str = "/v1/rename";

/// `POST`; both bodies are streams of [`crate::frame::Frame`]. See [`crate::exec`].
pub const EXEC: &str = "/v1/exec";

/// `POST` → 204 when everything written so far is on the disk.
pub const SYNC: &str = "/v1/sync";

/// `POST` [`crate::guest::AdjustClock`] → [`crate::guest::Clock`].
pub const CLOCK: &str = "/v1/clock";

/// `POST` → 204 when no program of the VM runs any more, until [`LET_GO`]; one that is started meanwhile waits. A copy that is
/// made of the VM's memory then comes up with programs that wait for its [`RENAME`]. 409 if some do not stand still, and then
/// all go on.
pub const HOLD: &str = "/v1/hold";

/// `POST` → 204. Programs go on, whether they were held or not.
pub const LET_GO: &str = "/v1/let-go";

/// `POST` → 204 when everything written so far is on the disk and nothing more gets there until [`THAW`], or until the
/// agent has waited for that for [`crate::limits::FROZEN_SECONDS`]. One that is frozen already, by a manager that
/// did not live to thaw it, is let go first and frozen anew.
pub const FREEZE: &str = "/v1/freeze";

/// `POST` → [`crate::guest::Thawed`]. 409 if the disk is not frozen, or not any more: what was copied may be torn.
pub const THAW: &str = "/v1/thaw";

/// `PUT ?dest=PATH` with a tar.gz body → 204. The directory is made. The archive was checked by the manager.
/// `GET ?path=PATH` → a tar.gz of the directory's contents, or of the one file. That of `/workspace` is without what
/// [`TREES`] puts there.
pub const ARCHIVE: &str = "/v1/files/archive";

/// `GET ?path=PATH` → the file's bytes; `PUT ?path=PATH&executable=BOOL` with raw bytes → 204. Parents are made.
pub const CONTENT: &str = "/v1/files/content";

/// `GET ?path=PATH` → [`crate::files::Stat`].
pub const STAT: &str = "/v1/files/stat";

/// `GET ?path=PATH` → [`crate::files::Listing`].
pub const LIST: &str = "/v1/files/list";

/// `PUT` a JSON object of strings: the environment of the VM's secrets from now on → 204. Programs that run keep the old
/// values; workers are replaced, and calls that begin after the reply see the new ones.
pub const SECRETS: &str = "/v1/secrets";

/// `POST` [`crate::peer::OpenBridge`] → [`crate::peer::Bridge`].
pub const BRIDGE: &str = "/v1/peers/bridge";

/// `PUT` an uncompressed tar with the directories `peers` and `rds` → 204. They take the place of `/workspace/peers` and
/// `/workspace/.rds` at once, owned by root and read-only.
pub const TREES: &str = "/v1/peers/trees";

/// `POST` [`crate::peer::Offer`] → [`crate::peer::Offered`]. The modules are loaded.
pub const OFFER: &str = "/v1/peers/offer";

/// `POST` [`crate::peer::Call`] → [`crate::peer::Outcome`]. Dropping the request cancels the call.
pub const CALL: &str = "/v1/peers/call";
