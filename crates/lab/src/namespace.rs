//! Network namespaces, each held by a process that sleeps.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a namespace lives at most, in seconds: a test that is killed leaves none for long.
const LIFE: &str = "900";

/// A namespace, as long as this value lives.
#[derive(Debug)]
pub struct Namespace(Child);

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Namespace {
    /// An empty one.
    ///
    /// # Panics
    /// The system refuses.
    pub fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", LIFE]).spawn().unwrap();
        let namespace = Self(child);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        // The process has its namespace a moment after its start.
        while std::fs::read_link(namespace.path()).is_ok_and(|its| its == own) {
            std::thread::sleep(Duration::from_millis(2));
        }
        namespace
    }

    /// The process that holds it.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid())
    }

    /// A program that will run in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid().to_string(), program]);
        command
    }

    /// Runs `ip` in it.
    ///
    /// # Panics
    /// `ip` fails.
    pub fn ip(&self, arguments: &str) {
        run(self.command("ip").args(arguments.split(' ')));
    }

    /// Runs something in it, on a thread and a runtime of its own.
    ///
    /// # Panics
    /// The namespace cannot be entered.
    pub fn spawn<T: Send + 'static>(&self, work: impl AsyncFnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = File::open(self.path()).unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
        })
    }

    /// Runs something in it to its end.
    ///
    /// # Panics
    /// The work does.
    pub async fn run<T: Send + 'static>(&self, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        let thread = self.spawn(work);
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Runs a program that must succeed.
///
/// # Panics
/// It does not.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `ip` in this process's namespace.
///
/// # Panics
/// `ip` fails.
pub fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}
