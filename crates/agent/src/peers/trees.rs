//! The directories that tell a consumer's code about its peers: `/workspace/peers` and `/workspace/.rds`.
//!
//! They are root's and read-only. `peers` lies on the VM's disk, for it may hold a copy of a provider's files. `.rds`
//! lies in memory: it holds the bridge's token, which must not get into a snapshot of the disk.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use http::Response;
use hyper::body::Incoming;
use tar::Archive;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use rds_protocol::limits::UNPACKED_BYTES;

use crate::agent::Vm;
use crate::files::{Failure, WORDS, feed, unpack_entry};
use crate::pipe;
use crate::random;
use crate::reply::{Body, Refusal, empty};
use crate::sandbox::fork;
use crate::sandbox::tree::{MEMORY, TREES};

/// The archive's directories: the name in it, where its contents lie, the name in the user's files.
const DIRECTORIES: [(&str, &str, &str); 2] = [("peers", TREES, "peers"), ("rds", MEMORY, ".rds")];

/// Files of an archive. A provider's files may be mounted into it.
const ENTRIES: usize = 50_000;

/// Puts the trees of an archive in the place of the ones before. When the request is given up, the next one's turn is not before
/// this one's copy has ended: each removes what the others left.
pub(crate) async fn put(vm: Rc<Vm>, body: Incoming) -> Result<Response<Body>, Refusal> {
    tokio::task::spawn_local(put_in_turn(vm, body)).await.map_err(Refusal::internal)?
}

async fn put_in_turn(vm: Rc<Vm>, body: Incoming) -> Result<Response<Body>, Refusal> {
    let _turn = vm.trees.lock().await;
    let pipes = || io::Result::Ok((pipe::input()?, pipe::input()?, pipe::output()?));
    let ((archive, mut archive_in), (go, mut go_in), (words, words_out)) = pipes().map_err(Refusal::internal)?;
    let keep = [archive.as_raw_fd(), go.as_raw_fd(), words.as_raw_fd(), vm.sandbox.entrance()];
    // It blocks on the body and the disk, which the agent must not.
    let copy = fork(None, &keep, || report(place(&vm, &archive, &go), &words)).map_err(Refusal::internal)?;
    let ended = vm.keepers.reaper.watch(copy);
    drop((archive, go, words));
    let fed = feed(body, &mut archive_in).await;
    // Without this word, a body that broke off would be an archive that ends early.
    if fed.is_ok() {
        let _ = go_in.write_all(&[1]).await;
    }
    drop((archive_in, go_in));
    let mut said = Vec::new();
    let _ = words_out.take(WORDS).read_to_end(&mut said).await;
    let code = ended.await.map_or(-1, |ended| ended.code);
    fed?;
    match code {
        0 => {
            vm.bridge.placed();
            Ok(empty())
        }
        _ => Err(Failure::parse(&String::from_utf8_lossy(&said)).into_refusal()),
    }
}

fn report(outcome: Result<(), Failure>, words: &OwnedFd) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            let _ = rustix::io::write(words, failure.to_string().as_bytes());
            1
        }
    }
}

/// In a copy of the agent: unpacks, grafts, and removes what is of no use any more.
fn place(vm: &Vm, archive: &OwnedFd, go: &OwnedFd) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::at("the trees", &error);
    let homes = [TREES, MEMORY].map(|path| File::open(path).map_err(failed));
    let fresh = random::name();
    let placed = unpack(archive, &fresh).and_then(|()| {
        if rustix::io::read(go, &mut [0; 1]) != Ok(1) {
            return Err(Failure::bad("the archive broke off"));
        }
        let paths = DIRECTORIES.map(|(name, above, target)| (format!("{above}/{fresh}/{name}"), target));
        vm.sandbox.graft(&paths.each_ref().map(|(path, target)| (path.as_str(), *target))).map_err(failed)
    });
    for home in homes {
        // By descriptor: the sandbox's namespace, which this copy may be in by now, has no such paths.
        let home = home?;
        let entries = fs::read_dir(format!("/proc/self/fd/{}", home.as_raw_fd())).map_err(failed)?;
        for entry in entries.flatten() {
            if (entry.file_name() == *fresh) != placed.is_ok() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    placed
}

fn unpack(archive: &OwnedFd, fresh: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::at("the trees", &error);
    let mut roots = Vec::new();
    for (name, above, _) in DIRECTORIES {
        let root = format!("{above}/{fresh}");
        fs::create_dir_all(format!("{root}/{name}")).map_err(failed)?;
        roots.push((name, OwnedFd::from(File::open(root).map_err(failed)?)));
    }
    let mut archive = Archive::new(File::from(archive.try_clone().map_err(failed)?));
    let mut bytes = 0_u64;
    for (number, entry) in archive.entries().map_err(|error| Failure::archive(&error))?.enumerate() {
        let mut entry = entry.map_err(|error| Failure::archive(&error))?;
        bytes = bytes.saturating_add(entry.size());
        if number >= ENTRIES || bytes > UNPACKED_BYTES {
            return Err(Failure::bad("the archive has too many entries or is too large"));
        }
        let path = entry.path().map_err(|error| Failure::archive(&error))?.into_owned();
        let root = roots.iter().find(|(name, _)| path.starts_with(name));
        let (_, root) = root.ok_or_else(|| Failure::bad(format!("{}: not one of the trees", path.display())))?;
        unpack_entry(&mut entry, root)?;
    }
    Ok(())
}
