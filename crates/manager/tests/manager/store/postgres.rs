//! A Postgres server for a test, from the distribution's package, reached over a Unix socket.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The server refuses to run as root; this user has nothing (`nobody` on Debian).
const NOBODY: u32 = 65_534;

pub(super) struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    /// Fails if the package is not installed.
    pub(super) fn start() -> Self {
        let bin = programs().expect("no Postgres server is installed (Debian's package postgresql)");
        let dir = tempfile::Builder::new().prefix("rds-pg-").tempdir().unwrap();
        if is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = dir.path().join("data");
        let made = program(&bin.join("initdb"))
            .args(["--auth=trust", "--username=rds", "--encoding=UTF8", "--no-sync", "--pgdata"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let child = program(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(dir.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self { child, dir };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !program(&bin.join("pg_isready")).arg("-q").arg("-h").arg(server.dir.path()).status().unwrap().success() {
            let log = || fs::read_to_string(server.dir.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://rds@localhost/postgres?host={}", self.dir.path().display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `nobody` may own the files, but the directory is ours to remove once the server has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir("/").env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Directory of the newest version's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut dirs: Vec<_> =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").is_file()).collect();
    dirs.sort();
    dirs.pop()
}
