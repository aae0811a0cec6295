//! Paths of the agent's HTTP/2 interface. All bodies are JSON unless the item says otherwise.

/// `GET` → [`crate::guest::Health`].
pub const HEALTH: &str = "/v1/health";

/// `POST` [`crate::guest::Configure`] → [`crate::guest::Configured`]. Accepted once; 409 afterwards.
pub const CONFIGURE: &str = "/v1/configure";

/// `POST`; both bodies are streams of [`crate::frame::Frame`]. See [`crate::exec`].
pub const EXEC: &str = "/v1/exec";

/// `POST` → 204 when everything written so far is on the disk.
pub const SYNC: &str = "/v1/sync";

/// `PUT ?dest=PATH` with a tar.gz body → 204. The directory is made. The archive was checked by the manager.
/// `GET ?path=PATH` → a tar.gz of the directory's contents, or of the one file.
pub const ARCHIVE: &str = "/v1/files/archive";

/// `GET ?path=PATH` → the file's bytes; `PUT ?path=PATH&executable=BOOL` with raw bytes → 204. Parents are made.
pub const CONTENT: &str = "/v1/files/content";

/// `GET ?path=PATH` → [`crate::files::Stat`].
pub const STAT: &str = "/v1/files/stat";

/// `GET ?path=PATH` → [`crate::files::Listing`].
pub const LIST: &str = "/v1/files/list";
