//! The server's settings as the program takes them: from variables, flags and the file. No server is started.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

const NONE: [(&str, &str); 0] = [];

/// Runs the program with these variables alone.
fn rds(words: &[&str], variables: &[(&str, impl AsRef<OsStr>)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rds"));
    command.args(words).env_clear().envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap()
}

/// What the program said about a setting that makes no sense.
fn refused(words: &[&str], variables: &[(&str, impl AsRef<OsStr>)]) -> String {
    let output = rds(words, variables);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.matches('\n').count(), 1, "one line: {said}");
    said.trim_end().to_owned()
}

/// A configuration file.
fn file(dir: &Path, text: &str) -> String {
    let path = dir.join("rds.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_makes_no_sense_is_one_line_that_says_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let many = [("MAX_CPU", "abc")];
    let why = "\"abc\" makes no sense: invalid digit found in string";
    for command in [&["serve"][..], &["up"], &["doctor"], &["secrets", "rekey"]] {
        assert_eq!(refused(command, &many), format!("rds: MAX_CPU: {why}"), "{command:?}");
    }
    let flags = ["serve", "--max-cpu", "abc"];
    assert_eq!(refused(&flags, &[("MAX_CPU", "2")]), format!("rds: --max-cpu: {why}"));
    let path = file(dir.path(), "max_cpu = \"abc\"\n");
    let in_file = format!("rds: `max_cpu` in the configuration file: {why}");
    assert_eq!(refused(&["serve"], &[("RDS_CONFIG", &path)]), in_file);
    assert_eq!(refused(&["serve", "--config", &path], &NONE), in_file);
    assert_eq!(
        refused(&["serve"], &[("RDS_HYPERVISOR", "bochs")]),
        "rds: RDS_HYPERVISOR: \"bochs\" makes no sense; it can be one of auto, firecracker, qemu"
    );
    assert!(refused(&["serve"], &[("LOG_JSON", "maybe")]).starts_with("rds: LOG_JSON: \"maybe\""));
    assert!(refused(&["serve"], &[("JAILER_UID", "0")]).starts_with("rds: JAILER_UID: \"0\""));
    assert!(refused(&["serve"], &[("MAX_VMS", "1\nrds: 2")]).starts_with("rds: MAX_VMS: "));
    assert_eq!(refused(&["serve"], &[("MAX_VMS", OsStr::from_bytes(b"\xff"))]), "rds: MAX_VMS: not UTF-8");
    assert!(refused(&["serve"], &[("ADMIN_EMAIL", "a@b")]).contains("ADMIN_PASSWORD is not"));
    assert_eq!(refused(&["serve", "--port"], &NONE), "rds: --port needs a value");
    assert!(refused(&["serve"], &[("RDS_CONFIG", &file(dir.path(), "a = \n"))]).starts_with("rds: configuration file"));
    assert!(refused(&["serve"], &[("RDS_CONFIG", &file(dir.path(), "a = 1\n"))]).ends_with("unknown setting `a`"));
}

#[test]
fn every_variable_that_is_blank_is_as_good_as_not_set() {
    let settings = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md")).unwrap();
    let names = settings.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    // The last one makes no sense, so that nothing is started.
    for blank in ["", "  "] {
        let mut variables: Vec<_> = names.clone().map(|name| (name, blank)).collect();
        assert!(variables.len() > 50, "{variables:?}");
        variables.retain(|(name, _)| *name != "MAX_CPU");
        variables.push(("MAX_CPU", "abc"));
        let reason = refused(&["serve"], &variables);
        assert!(reason.starts_with("rds: MAX_CPU"), "{reason}");
        // The checks of all settings together come last.
        variables.retain(|(name, _)| !["MAX_CPU", "DB_DIALECT"].contains(name));
        variables.push(("DB_DIALECT", "postgres"));
        assert_eq!(refused(&["serve"], &variables), "rds: DB_DIALECT is postgres but DATABASE_URL is not set");
    }
}

#[test]
fn the_file_is_for_commands_with_settings_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "no such = \n");
    let client = ["exec", "--url", "http://127.0.0.1:1", "a", "--", "serve", "doctor"];
    assert_eq!(
        rds(&client, &[("RDS_CONFIG", path.as_str()), ("RDS_API_KEY", "")]).status.code(),
        Some(3),
        "no server answers"
    );
    // Each of them takes each setting.
    let path = file(dir.path(), "log_json = true\nmax_cpu = 0\n");
    for command in [&["serve"][..], &["up"], &["doctor"], &["secrets", "rekey"]] {
        assert!(refused(command, &[("RDS_CONFIG", &path)]).contains("`max_cpu` in the configuration file"));
    }
}
