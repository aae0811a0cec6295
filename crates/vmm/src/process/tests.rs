use super::*;

const MARKS: Marks = Marks { file: "pid", output: "log", named: |_| None };

#[test]
fn a_process_is_known_by_its_root() {
    let root = fs::File::open("/").unwrap();
    let process = Process::of(std::process::id()).unwrap();
    let (found, wanted) = (rustix::fs::fstat(process.root().unwrap()), rustix::fs::fstat(root));
    assert_eq!(found.unwrap().st_ino, wanted.unwrap().st_ino);
}

#[test]
fn another_process_is_never_taken_for_a_machine() {
    let dir = tempfile::tempdir().unwrap();
    let locate = || Process::locate(dir.path(), &MARKS).unwrap();
    assert!(locate().is_none(), "no process file");
    record(dir.path(), std::process::id(), &MARKS).unwrap();
    let own = i32::try_from(std::process::id()).unwrap();
    assert_eq!(locate().unwrap().pid(), own);
    let recorded = fs::read_to_string(dir.path().join(MARKS.file)).unwrap();
    let earlier = recorded.replace(boot().unwrap(), "4e0a5e1c-d4f3-4ba1-9a5e-f1c5a2f3b0d7");
    fs::write(dir.path().join(MARKS.file), earlier).unwrap();
    assert!(locate().is_none(), "of another boot");
    fs::write(dir.path().join(MARKS.file), recorded.replacen(' ', " 1", 1)).unwrap();
    assert!(locate().is_none(), "of another time");
    fs::write(dir.path().join(MARKS.file), "not numbers").unwrap();
    assert!(locate().is_none());
    forget(dir.path(), &MARKS).unwrap();
    forget(dir.path(), &MARKS).unwrap();
}

#[test]
fn a_thread_is_no_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let _ = ended.recv();
    });
    let number: i32 = told.recv().unwrap();
    fs::write(dir.path().join(MARKS.file), format!("{number} 1 {}\n", boot().unwrap())).unwrap();
    assert!(Process::locate(dir.path(), &MARKS).unwrap().is_none());
    drop(end);
    thread.join().unwrap();
}

#[test]
fn one_that_has_ended_is_not_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = sleeper(dir.path(), &[]);
    child.kill().unwrap();
    while Identity::of(child.id().try_into().unwrap()).unwrap().is_some() {
        std::thread::yield_now();
    }
    record(dir.path(), child.id(), &MARKS).unwrap();
    assert!(!dir.path().join(MARKS.file).exists());
    child.wait().unwrap();
}

/// A process of somebody's; its command line names a machine of QEMU's if `words` do.
fn sleeper(dir: &Path, words: &[&str]) -> std::process::Child {
    let output = fs::File::options().append(true).create(true).open(dir.join(qemu::MARKS.output)).unwrap();
    let mut command = std::process::Command::new("sh");
    // The shell waits for what never comes.
    command.args(["-c", "read never; :"]).args(words).stdin(std::process::Stdio::piped()).stdout(output);
    command.spawn().unwrap()
}

/// A process that looks like a machine's of QEMU's, and the machine's directory in `parent`. Nobody has announced it.
fn machine(parent: &Path) -> (VmId, PathBuf, std::process::Child) {
    let id = VmId::new();
    let dir = parent.join(id.to_string());
    fs::create_dir(&dir).unwrap();
    let child = sleeper(&dir, &["-name", &format!("rds-{id}")]);
    (id, dir, child)
}

/// Waits until the child has become its program.
async fn until_found(parent: &Path, id: VmId) {
    while !find(parent).contains(&id) {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn whoever_started_a_machine_it_is_found_and_ended() {
    let parent = tempfile::tempdir().unwrap();
    let (id, dir, mut child) = machine(parent.path());
    assert!(!is_running(&dir, &qemu::MARKS), "nobody has announced it");
    until_found(parent.path(), id).await;
    assert!(is_running(&dir, &qemu::MARKS) && !is_running(&dir, &firecracker::MARKS));
    record(&dir, child.id(), &qemu::MARKS).unwrap();
    let (killed, ()) = tokio::join!(kill(&dir), wait(&dir, &qemu::MARKS));
    killed.unwrap();
    assert_eq!((find(parent.path()), dir.join(qemu::MARKS.file).exists()), (Vec::new(), false));
    child.wait().unwrap();
}

#[tokio::test]
async fn a_machine_is_found_though_its_directory_is_gone() {
    let parent = tempfile::tempdir().unwrap();
    let (id, dir, mut child) = machine(parent.path());
    fs::remove_dir_all(&dir).unwrap();
    until_found(parent.path(), id).await;
    assert!(is_running(&dir, &qemu::MARKS) && !dir.exists());
    kill(&dir).await.unwrap();
    assert!(!is_running(&dir, &qemu::MARKS));
    child.wait().unwrap();
}

/// Runs alone in a process of its own: a limit is all threads'.
#[test]
fn without_a_descriptor_nothing_is_said_to_have_ended() {
    const ALONE: &str = "RDS_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(ALONE).is_none() {
        let name = "process::tests::without_a_descriptor_nothing_is_said_to_have_ended";
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(ALONE, "1")
            .output();
        let alone = alone.unwrap();
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), std::process::id(), &qemu::MARKS).unwrap();
    let other = tempfile::tempdir().unwrap();
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let mut few = limit;
    few.current = Some(1);
    setrlimit(Resource::Nofile, few).unwrap();
    let unknown = [dir.path(), other.path()].map(|dir| Process::locate(dir, &qemu::MARKS).is_err());
    let (running, recorded) =
        (is_running(dir.path(), &qemu::MARKS), record(other.path(), std::process::id(), &qemu::MARKS));
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!((unknown, running), ([true, true], true));
    assert!(recorded.is_err() && !other.path().join(qemu::MARKS.file).exists());
}

#[test]
fn a_machine_yields_to_a_server_that_yields_itself() {
    let mut command = std::process::Command::new("nice");
    let yields = || {
        setpriority_process(None, 10)?;
        yield_processors()
    };
    // SAFETY: it makes system calls alone.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, yields) };
    assert_eq!(command.output().unwrap().stdout, b"15\n");
}
