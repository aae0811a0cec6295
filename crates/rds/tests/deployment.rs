//! What is shipped beside the program says what the program says.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rds_vmm::privileges::NEEDS;
use serde::Deserialize;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn needed() -> BTreeSet<String> {
    NEEDS.iter().map(|need| format!("CAP_{}", need.name)).collect()
}

#[test]
fn the_page_lists_every_capability() {
    let table: Vec<_> = NEEDS.iter().map(|need| format!("| `CAP_{}` | {} |\n", need.name, need.why)).collect();
    assert!(
        read("docs/deployment.md").contains(&table.concat()),
        "docs/deployment.md should have:\n{}",
        table.concat()
    );
}

/// The words of a setting of the unit.
fn unit(setting: &str) -> BTreeSet<String> {
    let unit = read("packaging/systemd/rds.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn the_unit_gives_what_is_needed() {
    for setting in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(unit(setting), needed(), "{setting}");
    }
}

/// System calls that are easily forbidden, and what needs them.
const CALLS: [(&str, &[&str]); 5] = [
    (
        "the server",
        &[
            "openat2",
            "fsopen",
            "fsconfig",
            "fsmount",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "memfd_create",
            "copy_file_range",
            "fallocate",
            "ioctl",
            "pidfd_open",
            "pidfd_send_signal",
            "inotify_init1",
            "name_to_handle_at",
        ],
    ),
    (
        "becoming a VM's user",
        &[
            "setuid",
            "setgid",
            "setgroups",
            "setresuid",
            "setresgid",
            "capset",
            "chown",
            "fchown",
            "fchownat",
            "prlimit64",
            "setrlimit",
            "setsid",
            "prctl",
        ],
    ),
    (
        "the jailer",
        &[
            "clone",
            "clone3",
            "unshare",
            "setns",
            "pivot_root",
            "mount",
            "umount2",
            "chroot",
            "mknod",
            "mknodat",
            "close_range",
        ],
    ),
    ("Firecracker", &["seccomp", "mincore", "userfaultfd", "madvise", "msync", "timerfd_create", "eventfd2"]),
    ("QEMU", &["seccomp", "mlock", "mbind", "membarrier", "ppoll", "sched_setaffinity"]),
];

#[test]
fn no_setting_of_the_unit_hides_a_call() {
    // systemd cannot look into the arguments of openat2, so it answers that there is no such call.
    assert_eq!(unit("RestrictSUIDSGID"), BTreeSet::new());
    // The groups that systemd 252 has. One that it does not know it ignores, with what is in it.
    let filter = unit("SystemCallFilter");
    let groups: Vec<_> = filter.iter().filter(|name| name.starts_with('@')).collect();
    assert_eq!(groups, ["@mount", "@system-service"]);
    assert!(filter.iter().all(|name| !name.starts_with('~')), "what is listed is allowed");
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_unit_allows_the_calls_that_are_needed() {
    let output = Command::new("systemd-analyze").args(["--no-pager", "syscall-filter"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut groups = BTreeMap::<&str, Vec<&str>>::new();
    let mut group = "";
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(member) if !member.starts_with('#') => groups.entry(group).or_default().push(member),
            Some(_) => {}
            None => group = line,
        }
    }
    let mut open: Vec<String> = unit("SystemCallFilter").into_iter().collect();
    let mut allowed = BTreeSet::new();
    while let Some(name) = open.pop() {
        match groups.get(name.as_str()) {
            Some(members) => open.extend(members.iter().map(|&member| member.to_owned())),
            None => drop(allowed.insert(name)),
        }
    }
    for (who, calls) in CALLS {
        let missing: Vec<_> = calls.iter().filter(|&&call| !allowed.contains(call)).collect();
        assert!(missing.is_empty(), "{who} needs {missing:?}");
    }
}

/// docker-compose.yml with the keys that are meant; any other is a mistake.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    services: Services,
    networks: BTreeMap<String, Network>,
    volumes: BTreeMap<String, Option<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Services {
    rds: Service,
    caddy: Service,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    build: Option<String>,
    image: String,
    restart: String,
    #[serde(default)]
    init: bool,
    env_file: Option<String>,
    environment: BTreeMap<String, String>,
    ports: Vec<String>,
    volumes: Vec<String>,
    #[serde(default)]
    devices: Vec<String>,
    read_only: bool,
    tmpfs: Vec<String>,
    cap_drop: Vec<String>,
    cap_add: BTreeSet<String>,
    security_opt: Vec<String>,
    #[serde(default)]
    sysctls: BTreeMap<String, String>,
    networks: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    ipam: Value,
}

/// Reads YAML, in which a key may be there only once, and writes JSON.
const READER: &str = "
import json, sys, yaml
class Strict(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return super().construct_mapping(node, deep)
json.dump(yaml.load(sys.stdin, Strict), sys.stdout)
";

fn compose() -> Compose {
    let python = root().join("target/tools/python/bin/python3");
    let file = fs::File::open(root().join("docker-compose.yml")).unwrap();
    let output = Command::new(python).args(["-c", READER]).stdin(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[ignore = "needs Python's yaml in target/tools"]
fn the_compose_file_gives_what_is_needed() {
    let Compose { services: Services { rds, caddy }, networks, volumes } = compose();
    assert_eq!(rds.cap_add.iter().map(|name| format!("CAP_{name}")).collect::<BTreeSet<_>>(), needed());
    // Docker's profiles forbid a part of what these are for, even where they are given.
    let wanted = ["no-new-privileges:true", "apparmor:unconfined", "seccomp=unconfined", "systempaths=unconfined"];
    assert_eq!(rds.security_opt, wanted);
    assert_eq!(rds.devices, ["/dev/kvm", "/dev/net/tun"]);
    assert_eq!(rds.sysctls, [("net.ipv4.ip_forward".into(), "1".into())].into());
    assert_eq!((rds.build.as_deref(), rds.init), (Some("."), true));
    assert_eq!(rds.ports, ["127.0.0.1:3000:3000"]);
    for service in [&rds, &caddy] {
        assert!(service.read_only, "{service:?}");
        assert_eq!(service.cap_drop, ["ALL"]);
        assert_eq!(service.restart, "unless-stopped");
        assert!(service.security_opt.contains(&"no-new-privileges:true".into()), "{service:?}");
        assert!(!service.tmpfs.is_empty(), "{service:?}");
        let named = service.volumes.iter().map(|volume| volume.split_once(':').unwrap().0);
        assert!(named.filter(|name| !name.starts_with('.')).all(|name| volumes.contains_key(name)), "{service:?}");
    }
    assert_eq!(caddy.cap_add, ["NET_BIND_SERVICE".to_owned()].into());
    pinned(&caddy.image);
    // The one whose headers are believed is the proxy.
    assert_eq!(rds.environment["TRUSTED_PROXIES"], caddy.networks["front"]["ipv4_address"].as_str().unwrap());
    assert_eq!(rds.networks[0], "front");
    assert!(networks["front"].ipam["config"][0]["subnet"].is_string());
}

#[test]
#[ignore = "needs Python's yaml in target/tools"]
fn every_setting_reaches_the_container() {
    let mut rds = compose().services.rds;
    // What is in there is set; what is not is not, not even to nothing.
    assert_eq!(rds.env_file.as_deref(), Some(".env"));
    // And these stand for what it says. Without the first two there is no server.
    for needed in ["API_KEY", "VM_SECRET_KEY"] {
        assert_eq!(rds.environment.remove(needed).unwrap(), format!("${{{needed}:?}}"));
    }
    rds.environment.remove("TRUSTED_PROXIES").unwrap();
    let port = rds.environment.remove("PORT").unwrap();
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains(&format!("\nEXPOSE {port}\n")), "{port}");
    let own = dockerfile.lines().find_map(|line| line.strip_prefix("ENV BIND_ADDRESS=")).unwrap();
    let own = format!("BIND_ADDRESS={own}");
    let own = own.split(' ').map(|setting| setting.split_once('=').unwrap());
    let own: BTreeMap<_, _> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(rds.environment, own, "no other setting is fixed");
}

/// An image is named by what is in it.
#[track_caller]
fn pinned(image: &str) {
    let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
    let digest = digest.filter(|digest| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(digest.is_some(), "{image} has no digest");
}

#[test]
fn the_dockerfile_takes_nothing_that_may_change() {
    const INSTRUCTIONS: [&str; 11] =
        ["ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "VOLUME", "WORKDIR"];
    let dockerfile = read("Dockerfile");
    let mut stages = BTreeSet::new();
    let mut arguments = BTreeMap::new();
    for line in dockerfile.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, rest) = line.split_once(' ').unwrap();
        // ADD is none: it fetches what nobody compares.
        assert!(INSTRUCTIONS.contains(&instruction), "{line}");
        match instruction {
            "ARG" => drop(rest.split_once('=').and_then(|(name, value)| arguments.insert(name, value))),
            "FROM" => {
                let (image, stage) = rest.split_once(" AS ").map_or((rest, None), |(image, name)| (image, Some(name)));
                let argument = image.strip_prefix("${").and_then(|name| name.strip_suffix('}'));
                if !stages.contains(image) {
                    pinned(argument.map_or(image, |name| arguments[name]));
                }
                stages.extend(stage);
            }
            "COPY" => {
                let from = rest.strip_prefix("--from=").map(|rest| rest.split_once(' ').unwrap().0);
                assert!(from.is_none_or(|stage| stages.contains(stage)), "{line}");
            }
            "RUN" => assert!(!rest.contains("://"), "{line}: rds setup compares what it fetches"),
            "CMD" | "ENTRYPOINT" => drop(serde_json::from_str::<Vec<String>>(rest).unwrap()),
            _ => {}
        }
    }
}

#[test]
fn the_page_lists_every_step_of_the_tests() {
    let script = read("scripts/test.sh");
    let steps: Vec<_> = script.lines().filter_map(|line| line.strip_prefix("step \"")?.split('"').next()).collect();
    let page = read("CONTRIBUTING.md");
    let (_, table) = page.split_once("| step | by hand |\n|---|---|\n").unwrap();
    let rows: Vec<_> = table.lines().map_while(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    assert_eq!(rows, steps);
}
