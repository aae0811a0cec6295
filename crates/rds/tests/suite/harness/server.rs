//! A real `rds serve` with a storage root of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::api::Api;
use super::disk::SmallDisk;
use super::groups;
use super::prerequisites::Prerequisites;
use super::processes;
use super::schema::Document;

/// The key that every server here accepts.
pub(crate) const API_KEY: &str = "suite-key-1f0e";
/// Who signs in.
pub(crate) const ADMIN_EMAIL: &str = "admin@example.org";
/// With which password.
pub(crate) const ADMIN_PASSWORD: &str = "correct horse battery";

/// How long a server may take to listen; the first start on a machine may try KVM out.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Settings without a limit on requests; a test that wants one sets it.
const UNLIMITED: [&str; 8] = [
    "RATE_LIMIT_DEFAULT",
    "RATE_LIMIT_CREATE_VM",
    "RATE_LIMIT_EXEC",
    "RATE_LIMIT_RUN_TS",
    "RATE_LIMIT_RUN_JS",
    "RATE_LIMIT_UPLOAD",
    "RATE_LIMIT_DOWNLOAD",
    "RATE_LIMIT_LOGIN",
];

/// A server process. Dropping it ends it and every VM it left.
pub(crate) struct TestServer {
    child: Child,
    /// Taken away before the directory that it lies over.
    disk: Option<SmallDisk>,
    root: TempDir,
    env: Vec<(String, String)>,
    url: String,
    starts: u32,
    user: Option<u32>,
    document: Arc<Document>,
}

/// What is not as usual about a server.
#[derive(Default)]
struct Ground<'a> {
    /// What another server kept.
    kept: Option<&'a Path>,
    /// Bytes of the disk that it has to itself.
    bytes: Option<u64>,
    /// Whom it runs as.
    user: Option<u32>,
}

impl TestServer {
    /// Starts a server with the image in place and these settings besides.
    pub(crate) async fn start(found: &Prerequisites, settings: &[(&str, &str)]) -> Self {
        Self::with_env(with_image(found), settings, Ground::default()).await
    }

    /// The same with what another server [kept](TestServer::keep), as if it had run there before.
    pub(crate) async fn start_with(found: &Prerequisites, settings: &[(&str, &str)], kept: &Path) -> Self {
        Self::with_env(with_image(found), settings, Ground { kept: Some(kept), ..Ground::default() }).await
    }

    /// A server as [`TestServer::start`] starts it, as a user who has no more than the capabilities that a server needs.
    pub(crate) async fn start_as(found: &Prerequisites, user: u32, settings: &[(&str, &str)]) -> Self {
        Self::with_env(with_image(found), settings, Ground { user: Some(user), ..Ground::default() }).await
    }

    /// Starts a server that has no image.
    pub(crate) async fn without_image(found: &Prerequisites, settings: &[(&str, &str)]) -> Self {
        let mut env = base_env();
        env.push(owned(("RDS_AGENT_PATH", found.agent.display().to_string())));
        Self::with_env(env, settings, Ground::default()).await
    }

    /// The same, on a disk of so many bytes.
    pub(crate) async fn on_small_disk(found: &Prerequisites, settings: &[(&str, &str)], bytes: u64) -> Self {
        Self::with_env(with_image(found), settings, Ground { bytes: Some(bytes), ..Ground::default() }).await
    }

    async fn with_env(mut env: Vec<(String, String)>, settings: &[(&str, &str)], ground: Ground<'_>) -> Self {
        let Ground { kept, bytes, user } = ground;
        let root = tempfile::Builder::new().prefix("rds-s").tempdir_in("/tmp").expect("a directory in /tmp");
        env.push(owned(("STORAGE_ROOT", root.path().display().to_string())));
        for (name, value) in settings {
            env.retain(|(known, _)| known != name);
            env.push(owned((*name, (*value).to_owned())));
        }
        let disk = bytes.map(|bytes| SmallDisk::over(root.path(), bytes));
        if let Some(kept) = kept {
            link_kept(kept, root.path()).expect("both are in /tmp");
        }
        std::os::unix::fs::chown(root.path(), user, user).expect("root may give a directory away");
        let child = spawn(&env, root.path(), 0, user);
        let document = Arc::new(Document::default());
        let mut server = Self { child, disk, root, env, url: String::new(), starts: 0, user, document };
        server.wait_until_listening().await;
        server.document = Arc::new(Document::fetch(&server.url).await);
        server
    }

    /// Starts it again, with a setting changed or (`None`) taken away.
    pub(crate) async fn restart(&mut self, changes: &[(&str, Option<&str>)]) {
        for (name, value) in changes {
            self.env.retain(|(known, _)| known != name);
            self.env.extend(value.map(|value| owned((*name, value.to_owned()))));
        }
        self.starts += 1;
        self.child = spawn(&self.env, self.root.path(), self.starts, self.user);
        self.wait_until_listening().await;
    }

    /// Ends the server as a power cut would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends the server as an operator would.
    pub(crate) async fn stop(&mut self) {
        processes::signal(self.child.id(), rustix::process::Signal::TERM);
        self.wait_until_ended(Duration::from_secs(20)).await;
    }

    /// Waits until the server has ended by itself.
    pub(crate) async fn wait_until_ended(&mut self, limit: Duration) {
        let begun = Instant::now();
        while self.child.try_wait().expect("the child is ours").is_none() {
            assert!(begun.elapsed() < limit, "the server did not end\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_until_listening(&mut self) {
        let begun = Instant::now();
        loop {
            let log = fs::read_to_string(self.log_file()).unwrap_or_default();
            // A line may be read while it is written.
            let mut lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            if let Some(url) = lines.find_map(|line| line.strip_prefix("listening on ")) {
                self.url = url.to_owned();
                return;
            }
            let ended = self.child.try_wait().expect("the child is ours");
            assert!(ended.is_none() && begun.elapsed() < START_LIMIT, "the server did not start ({ended:?}):\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A client with the key that checks every reply.
    pub(crate) fn api(&self) -> Api {
        Api::new(&self.url, Some(API_KEY), self.document.clone(), self.log_file())
    }

    /// The same without a key.
    pub(crate) fn anonymous(&self) -> Api {
        Api::new(&self.url, None, self.document.clone(), self.log_file())
    }

    /// Its OpenAPI document.
    pub(crate) fn document(&self) -> &Document {
        &self.document
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its storage root.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Its seeds, and what it found out about this machine, on which they depend. The files are the server's: nobody may write to
    /// them.
    pub(crate) fn keep(&self) -> TempDir {
        let kept = tempfile::Builder::new().prefix("rds-kept").tempdir_in("/tmp").expect("a directory in /tmp");
        link_kept(self.root.path(), kept.path()).expect("both are in /tmp");
        kept
    }

    /// Leaves so many bytes free on its small disk.
    pub(crate) fn leave_room(&self, bytes: u64) {
        self.disk.as_ref().expect("its disk is small").leave(bytes);
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processes of its VMs.
    pub(crate) fn vm_processes(&self) -> Vec<u32> {
        processes::holding(&self.root.path().join("vms"), Some(self.child.id()))
    }

    /// Directories of its VMs.
    pub(crate) fn vm_directories(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.path().join("vms")).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    }

    /// Fails if a VM left anything: a process, a directory, an unfinished file, a row, a control group, a jail.
    pub(crate) async fn assert_no_trace(&self) {
        assert_eq!(self.vm_processes(), Vec::<u32>::new(), "VM processes are left");
        assert_eq!(self.vm_directories(), Vec::<PathBuf>::new(), "VM directories are left");
        let unfinished: Vec<_> = fs::read_dir(self.root.path().join("tmp")).into_iter().flatten().flatten().collect();
        assert!(unfinished.is_empty(), "unfinished files are left: {unfinished:?}");
        assert_eq!(self.api().get("/v1/vms").await.ok().json(), serde_json::json!([]), "rows are left");
        // Machines of other servers come and go meanwhile.
        let mut deserted = groups::deserted();
        if !deserted.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            deserted = &deserted & &groups::deserted();
        }
        assert!(deserted.is_empty(), "control groups are left: {deserted:?}");
        let elsewhere = self.env.iter().find(|(name, _)| name == "JAILER_CHROOT_BASE_DIR");
        let jails = elsewhere.map(|(_, base)| fs::read_dir(Path::new(base).join("firecracker")));
        let jails: Vec<_> = jails.into_iter().flatten().flatten().flatten().collect();
        assert!(jails.is_empty(), "jails are left: {jails:?}");
    }

    /// What is in the storage root, and which processes and sockets are there, that no VM, snapshot, seed or machine of the pool
    /// accounts for: before and after something that leaves nothing, it is the same. Nothing may be under way.
    pub(crate) async fn unaccounted(&self) -> BTreeSet<String> {
        let (api, root) = (self.api(), self.root.path());
        let mut known = BTreeSet::new();
        for (list, directory) in [("/v1/vms", "vms"), ("/v1/snapshots", "snapshots")] {
            let list = api.get(list).await.ok().json();
            let ids = list.as_array().expect("a list").iter().map(|one| one["id"].as_str().expect("an id").to_owned());
            known.extend(ids.map(|id| root.join(directory).join(id)));
        }
        known.extend(self.vm_directories().into_iter().filter(|dir| dir.join("pool.json").exists()));
        let seeds = fs::read_dir(root.join("seeds")).into_iter().flatten().flatten().map(|entry| entry.path());
        known.extend(seeds.filter(|dir| dir.join("seed.json").exists()));
        let mut found = BTreeSet::new();
        let mut above = vec![root.to_owned()];
        while let Some(dir) = above.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                // The server's own.
                if known.contains(&path)
                    || dir == root && (name.starts_with("server-") || name.starts_with("manager.db"))
                {
                    continue;
                }
                found.insert(path.strip_prefix(root).expect("it is below").display().to_string());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    above.push(path);
                }
            }
        }
        let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let sockets = sockets.lines().filter_map(|line| line.split_whitespace().nth(7)).map(PathBuf::from);
        let strange = sockets.filter(|path| path.starts_with(root) && !known.iter().any(|dir| path.starts_with(dir)));
        found.extend(strange.map(|path| format!("socket {}", path.display())));
        let ours: Vec<u32> = known.iter().flat_map(|dir| processes::holding(dir, Some(self.child.id()))).collect();
        let all = processes::holding(root, Some(self.child.id()));
        found.extend(all.into_iter().filter(|pid| !ours.contains(pid)).map(|pid| format!("process {pid}")));
        found
    }

    fn log_file(&self) -> PathBuf {
        log_file(self.root.path(), self.starts)
    }

    /// The end of the server's log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log_file(), 60)
    }

    /// The ends of its VMs' logs: consoles, and what their monitors said.
    fn vm_log_tails(&self) -> String {
        let files = self.vm_directories().into_iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
        let logs = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.map(|log| format!("--- end of {} ---\n{}\n", log.display(), tail(&log, 15))).collect()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the server's log ---\n{}\n{}---", self.log_tail(), self.vm_log_tails());
        }
        self.kill();
        // Of a seed that was being made, too.
        for pid in processes::holding(self.root.path(), None) {
            let group = groups::of(pid).filter(|_| groups::missing().is_none());
            processes::kill(pid);
            if let Some(group) = group.filter(|group| group.parent().is_some_and(|above| above.ends_with("rds-vms"))) {
                groups::remove(&group);
            }
        }
    }
}

/// Gives one storage root what a server kept in another one. Directories are new, files are the same.
fn link_kept(from: &Path, to: &Path) -> io::Result<()> {
    for found_out in ["kvm-probe", "tsc-rate"] {
        match fs::hard_link(from.join(found_out), to.join(found_out)) {
            // Not every monitor needs to know.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::create_dir(to.join("seeds"))?;
    for seed in fs::read_dir(from.join("seeds"))? {
        let seed = seed?;
        // What is being made is no seed yet.
        if !seed.path().join("seed.json").exists() {
            continue;
        }
        let dir = to.join("seeds").join(seed.file_name());
        fs::create_dir(&dir)?;
        for file in fs::read_dir(seed.path())? {
            let file = file?;
            fs::hard_link(file.path(), dir.join(file.file_name()))?;
        }
    }
    Ok(())
}

/// The last lines of a log.
fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn owned((name, value): (&str, String)) -> (String, String) {
    (name.to_owned(), value)
}

fn with_image(found: &Prerequisites) -> Vec<(String, String)> {
    let mut env = base_env();
    env.extend(found.image_settings().map(|(name, path)| owned((name, path.display().to_string()))));
    env.push(owned(("RDS_AGENT_PATH", found.agent.display().to_string())));
    env
}

fn base_env() -> Vec<(String, String)> {
    let mut env: Vec<_> = UNLIMITED.iter().map(|name| owned((name, "0".into()))).collect();
    env.extend(
        [
            ("PORT", "0"),
            ("API_KEY", API_KEY),
            ("ADMIN_EMAIL", ADMIN_EMAIL),
            ("ADMIN_PASSWORD", ADMIN_PASSWORD),
            ("MAX_VMS", "40"),
            ("VM_SECRET_KEY", "the key of the suite"),
            ("NO_COLOR", "1"),
            // The network of the machine that runs the tests is not theirs to change.
            ("NETWORK", "off"),
        ]
        .map(|(name, value)| owned((name, value.to_owned()))),
    );
    let kept = [
        "PATH",
        "HOME",
        "RUST_LOG",
        "RDS_ACCELERATOR",
        "RDS_HYPERVISOR",
        "FIRECRACKER_BIN",
        "JAILER_BIN",
        "LLVM_PROFILE_FILE",
    ];
    env.extend(kept.iter().filter_map(|name| Some(owned((name, std::env::var(name).ok()?)))));
    env
}

fn log_file(root: &Path, start: u32) -> PathBuf {
    root.join(format!("server-{start}.log"))
}

/// The server's program, or one that becomes it as `user`.
fn program(user: Option<u32>) -> Command {
    let program = env!("CARGO_BIN_EXE_rds");
    let Some(user) = user else { return Command::new(program) };
    let needed: String =
        rds_vmm::privileges::NEEDS.iter().map(|need| format!(",+{}", need.name.to_lowercase())).collect();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups", "--no-new-privs"]);
    command.args(["--inh-caps", &format!("-all{needed}"), "--ambient-caps", &format!("-all{needed}")]);
    command.args(["--bounding-set", &format!("-all{needed}"), program]);
    command
}

fn spawn(env: &[(String, String)], root: &Path, start: u32, user: Option<u32>) -> Child {
    let log = File::create(log_file(root, start)).expect("the storage root is writable");
    program(user)
        .arg("serve")
        .env_clear()
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second descriptor"))
        .stderr(log)
        .spawn()
        .expect("the server can be started")
}
