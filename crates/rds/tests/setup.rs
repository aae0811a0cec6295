//! `rds setup` with archives from a file and from a server on this machine.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// An archive with a release's names and programs that print these versions; `None` leaves one out.
fn archive(firecracker: Option<&str>, jailer: Option<&str>) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, word, version) in [("firecracker", "Firecracker", firecracker), ("jailer", "Jailer", jailer)] {
        let Some(version) = version else { continue };
        let program = format!("#!/bin/sh\necho '{word} v{version}'\n");
        let mut header = tar::Header::new_gnu();
        header.set_size(program.len() as u64);
        header.set_mode(0o4777);
        let path = format!("release-v1.16.1-x86_64/{name}-v1.16.1-x86_64");
        archive.append_data(&mut header, path, program.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn release() -> Vec<u8> {
    archive(Some("1.16.1"), Some("1.16.1"))
}

fn digest(archive: &[u8]) -> String {
    hex::encode(Sha256::digest(archive))
}

fn setup(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rds"));
    command.args(["setup", "--dir"]).arg(dir).args(arguments).env_remove("RDS_CONFIG").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Installs from a file with this content, of which the digest is right.
fn from_file(dir: &Path, archive: &[u8]) -> Output {
    let file = dir.with_extension("tgz");
    fs::write(&file, archive).unwrap();
    setup(dir, &["--file", file.to_str().unwrap(), "--sha256", &digest(archive)])
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .map_or(Vec::new(), |entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect());
    names.sort();
    names
}

/// Serves one answer to whoever asks, as long as it is read.
fn serve(head: &'static str, body: Vec<u8>, endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/firecracker.tgz", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(&body).is_ok() && endless {}
        }
    });
    url
}

#[test]
fn a_release_is_installed_and_kept_when_another_is_none() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("bin");
    let installed = from_file(&dir, &release());
    assert!(installed.status.success(), "{}", said(&installed));
    assert_eq!(names(&dir), ["firecracker", "jailer"]);
    for name in names(&dir) {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o7777, 0o755);
    }
    // Nothing is read then: the file is none.
    let again = setup(&dir, &["--file", "/dev/null/none"]);
    assert!(again.status.success() && said(&again).contains("is there already"), "{}", said(&again));

    // Another program that says the same is none with this digest.
    fs::write(dir.join("firecracker"), "#!/bin/sh\necho Firecracker v1.16.1 # another\n").unwrap();
    let replaced = from_file(&dir, &release());
    assert!(replaced.status.success() && said(&replaced).contains("is installed"), "{}", said(&replaced));
    assert!(!fs::read_to_string(dir.join("firecracker")).unwrap().contains("another"));

    // An older one that is there is replaced, but only by a whole release.
    for (archive, why) in [
        (archive(Some("1.16.1"), None), "has not both programs"),
        (archive(Some("1.16.1"), Some("1.16.2")), "its version is 1.16.1 and that of its jailer 1.16.2"),
        (archive(Some("1.17.0"), Some("1.17.0")), "the archive holds release 1.17.0"),
        (archive(Some("1.2.0"), Some("1.2.0")), "older than"),
        (release()[..100].to_vec(), "cannot be read"),
        (b"not an archive".to_vec(), "cannot be read"),
    ] {
        fs::write(dir.join("firecracker"), "#!/bin/sh\necho Firecracker v1.15.0\n").unwrap();
        let refused = from_file(&dir, &archive);
        assert_eq!(refused.status.code(), Some(1), "{why}");
        assert!(said(&refused).contains(why), "{}", said(&refused));
        assert_eq!(names(&dir), ["firecracker", "jailer"], "{why}: something is left");
        assert!(fs::read_to_string(dir.join("firecracker")).unwrap().contains("1.15.0"), "{why}");
    }
    assert!(from_file(&dir, &release()).status.success());
    assert!(fs::read_to_string(dir.join("firecracker")).unwrap().contains("1.16.1"));
}

#[test]
fn what_has_another_digest_is_not_installed() {
    let home = TempDir::new().unwrap();
    let (dir, file) = (home.path().join("bin"), home.path().join("release.tgz"));
    fs::write(&file, release()).unwrap();
    // That of the real release is what is wanted if nobody says otherwise.
    let refused = setup(&dir, &["--file", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let why = said(&refused);
    assert!(why.contains(&digest(&release())) && why.contains("382a02a869e4d6d5"), "{why}");
    assert_eq!(names(&dir), [] as [&str; 0]);

    for (arguments, why) in [
        (&["--release", "1.17.0"][..], "name the SHA-256 of release 1.17.0"),
        (&["--sha256", "382a"], "64 hexadecimal digits"),
        (&["--release", "../1", "--sha256", &digest(b"")], "named by numbers"),
    ] {
        let refused = setup(&dir, arguments);
        assert_eq!(refused.status.code(), Some(2));
        assert!(said(&refused).contains(why), "{}", said(&refused));
    }
}

#[test]
fn a_release_is_downloaded() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("bin");
    let wanted = digest(&release());
    let from = |url: &str| setup(&dir, &["--url", url, "--sha256", &wanted]);

    let length = release().len();
    let cut = Box::leak(format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", length + 1).into_boxed_str());
    for (url, why) in [
        (serve("HTTP/1.0 404 Not Found\r\n\r\n", Vec::new(), false), "404"),
        (serve("HTTP/1.0 200 OK\r\n\r\n", vec![0; 1 << 20], true), "no release is"),
        (serve("HTTP/1.0 200 OK\r\n\r\n", b"a page".to_vec(), false), "the archive is not the release"),
        (serve("HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", Vec::new(), false), "cannot download"),
        (serve("HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", Vec::new(), false), "cannot download"),
        (serve(cut, release(), false), "cannot download"),
        ("http://127.0.0.1:1/".into(), "--file takes a file instead"),
        ("file:///etc/passwd".into(), "cannot download"),
    ] {
        let refused = from(&url);
        assert_eq!(refused.status.code(), Some(1), "{why}");
        assert!(said(&refused).contains(why), "{}", said(&refused));
        assert_eq!(names(&dir), [] as [&str; 0], "{why}");
    }
    let installed = from(&serve("HTTP/1.0 200 OK\r\n\r\n", release(), false));
    assert!(installed.status.success(), "{}", said(&installed));
    assert_eq!(names(&dir), ["firecracker", "jailer"]);
}
