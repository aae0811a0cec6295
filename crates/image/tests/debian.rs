//! Real builds of the Debian image. They need root or user namespaces, the distribution's mirror and npm, and minutes,
//! so they are left out unless asked for: `cargo test -p rds-image --test debian -- --ignored`.

#![expect(clippy::unwrap_used, reason = "a failure of a test is a panic")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rds_image::debian::{self, BuiltImage};
use rds_image::{Event, ImageError, Progress};

/// Remembers the steps; asks to stop while the system is being bootstrapped, if it is to.
#[derive(Default)]
struct Watch {
    interrupt: bool,
    bootstrapping: AtomicBool,
    took: Mutex<Vec<(&'static str, Duration)>>,
}

impl Progress for Watch {
    fn event(&self, event: Event) {
        match event {
            Event::Advanced { total: None, .. } => self.bootstrapping.store(true, Ordering::Relaxed),
            Event::Finished { step, took } => self.took.lock().unwrap().push((step, took)),
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.interrupt && self.bootstrapping.load(Ordering::Relaxed)
    }
}

fn build(output: &Path) -> BuiltImage {
    let (watch, start) = (Watch::default(), Instant::now());
    let image = debian::build(output, &watch).unwrap();
    println!("built in {:.1} s: {:?}", start.elapsed().as_secs_f64(), watch.took.lock().unwrap());
    image
}

fn debugfs(rootfs: &Path, command: &str) {
    let output = Command::new("/usr/sbin/debugfs").args(["-R", command]).arg(rootfs).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Everything about a file but its times.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    content: Vec<u8>,
}

fn facts(root: &Path, dir: &Path, all: &mut BTreeMap<PathBuf, Facts>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if metadata.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let facts_of_file = Facts { mode: metadata.mode(), owner: (metadata.uid(), metadata.gid()), content };
        all.insert(path.strip_prefix(root).unwrap().to_owned(), facts_of_file);
        if metadata.is_dir() {
            facts(root, &path, all);
        }
    }
}

fn tree(image: &BuiltImage, scratch: &Path) -> BTreeMap<PathBuf, Facts> {
    fs::create_dir(scratch).unwrap();
    debugfs(&image.rootfs(), &format!("rdump / {}", scratch.display()));
    let mut all = BTreeMap::new();
    facts(scratch, scratch, &mut all);
    all
}

#[test]
#[ignore = "builds two real images"]
fn two_builds_differ_only_in_times() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (first, second) = (build(&dir.path().join("first")), build(&dir.path().join("second")));
    for (a, b) in [(first.kernel(), second.kernel()), (first.modules(), second.modules())] {
        assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "{} differs", a.display());
    }
    assert_eq!(first.manifest.packages, second.manifest.packages, "packages were updated between the builds");
    let (a, b) = (tree(&first, &dir.path().join("a")), tree(&second, &dir.path().join("b")));
    let differing: Vec<_> =
        a.iter().filter(|(path, facts)| b.get(*path) != Some(facts)).map(|(path, _)| path).collect();
    assert!(differing.is_empty(), "{differing:?}");
    assert_eq!(a.len(), b.len());

    assert_eq!(BuiltImage::open(&first.dir).unwrap().manifest, first.manifest);
    let size: u64 = first.manifest.files.values().map(|file| file.bytes).sum();
    assert!(size < 700 << 20, "the image has {size} bytes");
    let user = &a[Path::new("home/user")];
    assert!(user.owner == (1000, 1000) || !rustix::process::geteuid().is_root());
    for program in ["usr/local/bin/node", "usr/local/bin/npm", "usr/local/bin/deno", "usr/bin/git", "usr/bin/ip"] {
        assert!(a.contains_key(Path::new(program)), "{program}");
    }
}

#[test]
#[ignore = "bootstraps a real system"]
fn an_interrupted_build_leaves_nothing_and_a_dead_one_is_cleared() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let output = dir.path().join("image");
    let site = dir.path().join("image.building");
    fs::create_dir_all(site.join("tree/left/by/a/dead/build")).unwrap();
    let watch = Watch { interrupt: true, ..Watch::default() };
    let error = debian::build(&output, &watch).unwrap_err();
    assert!(matches!(error, ImageError::Cancelled), "{error}");
    assert!(!output.exists() && !site.exists());
}

#[test]
fn refuses_an_output_that_exists_or_is_being_built() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(debian::build(dir.path(), &Watch::default()), Err(ImageError::Invalid(_))));
    let site = dir.path().join("image.building");
    fs::create_dir(&site).unwrap();
    let other = fs::File::open(&site).unwrap();
    other.lock().unwrap();
    let error = debian::build(&dir.path().join("image"), &Watch::default()).unwrap_err();
    assert!(error.to_string().contains("under way"), "{error}");
    assert!(site.exists());
}
