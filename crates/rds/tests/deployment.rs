//! What is shipped beside the program says what the program says.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::collections::BTreeSet;
use std::path::Path;

use rds_vmm::privileges::NEEDS;

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)).unwrap()
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

#[test]
fn the_unit_gives_what_is_needed() {
    let unit = read("packaging/systemd/rds.service");
    for setting in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
        let values = unit.lines().filter_map(|line| line.strip_prefix(setting));
        let given: BTreeSet<String> = values.flat_map(str::split_whitespace).map(str::to_owned).collect();
        assert_eq!(given, needed(), "{setting}");
    }
}

#[test]
fn the_container_gives_what_is_needed() {
    let compose = read("docker-compose.yml");
    let (_, added) = compose.split_once("    cap_add:\n").unwrap();
    let names = added.lines().map_while(|line| line.strip_prefix("      - "));
    assert_eq!(names.map(|name| format!("CAP_{name}")).collect::<BTreeSet<_>>(), needed());
    // Docker's profiles forbid a part of what these are for, even where they are given.
    let (_, options) = added.split_once("    security_opt:\n").unwrap();
    let options =
        options.lines().take_while(|line| line.starts_with("      ")).filter_map(|line| line.split_once("- "));
    let wanted = ["no-new-privileges:true", "apparmor:unconfined", "seccomp=unconfined", "systempaths=unconfined"];
    assert_eq!(options.map(|(_, option)| option).collect::<Vec<_>>(), wanted);
}
