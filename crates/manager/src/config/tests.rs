use clap::{Args, Command, FromArgMatches};

use super::*;
use crate::hypervisor::MonitorUsers;

fn command() -> Command {
    Config::augment_args(Command::new("test"))
}

fn parse(command: Command, args: &[&str]) -> Result<Config, String> {
    // The program tells it in its own words; which setting it is stands in the first line.
    let first_line = |error: clap::Error| error.to_string().lines().next().unwrap().to_owned();
    let matches = command.try_get_matches_from([&["test"], args].concat()).map_err(first_line)?;
    Config::from_arg_matches(&matches).map_err(first_line)?.validated().map_err(|error| error.to_string())
}

#[test]
fn defaults_are_those_of_the_wire_contract() {
    let config = parse(command(), &[]).unwrap();
    assert_eq!(config.http.port, 3000);
    assert_eq!(config.storage.storage_root.to_str(), Some("/var/lib/run-dat-sheesh"));
    assert_eq!(config.storage.images_dir().to_str(), Some("/var/lib/run-dat-sheesh/images"));
    assert_eq!(config.storage.overlay_size_bytes, 536_870_912);
    assert_eq!(config.limits.max_vms, 20);
    assert_eq!(config.rate_limits.rate_limit_exec, 300);
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rds.toml");
    std::fs::write(&file, "max_vms = 7\nmax_cpu = 2\nstorage_root = \"/srv/rds\"\ntrusted_proxies = [\"10.0.0.1\"]\n")
        .unwrap();
    let config = parse(with_file(command(), &file).unwrap(), &["--max-cpu", "3"]).unwrap();
    assert_eq!((config.limits.max_vms, config.limits.max_cpu), (7, 3));
    assert_eq!(config.storage.storage_root.to_str(), Some("/srv/rds"));
    assert_eq!(config.http.trusted_proxies.len(), 1);
}

#[test]
fn the_file_is_refused_by_the_name_of_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rds.toml");
    std::fs::write(&file, "max_vmz = 7\n").unwrap();
    assert!(with_file(command(), &file).unwrap_err().to_string().ends_with("unknown setting `max_vmz`"));
    std::fs::write(&file, "max_vms = 0\n").unwrap();
    let refused = parse(with_file(command(), &file).unwrap(), &[]).unwrap_err();
    assert!(refused.contains("--max-vms") && refused.contains("0"), "{refused}");
}

#[test]
fn what_is_blank_in_the_file_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rds.toml");
    let blank = ["kernel_path", "api_key", "admin_email", "dns_server_ip", "db_dialect", "port", "log_json"];
    std::fs::write(&file, blank.map(|key| format!("{key} = \" \"\n")).concat()).unwrap();
    let config = parse(with_file(command(), &file).unwrap(), &[]).unwrap();
    assert!(config.storage.kernel_path.is_none() && config.auth.api_key.is_none() && config.http.port == 3000);
    std::fs::write(&file, "nothing = \"\"\n").unwrap();
    assert!(with_file(command(), &file).is_err());
}

#[test]
fn any_command_with_settings_takes_all_of_them_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rds.toml");
    std::fs::write(&file, "log_json = true\njailer_uid = 1234\njailer_gid = 1234\nwarm_pool_target = 0\n").unwrap();
    let config = parse(with_file(command(), &file).unwrap(), &[]).unwrap();
    assert!(config.log.log_json);
    assert_eq!((config.hypervisor.jailer_uid, config.snapshots.warm_pool_target), (Some(1234), 0));
    assert!(parse(command(), &["--log-json"]).unwrap().log.log_json);
}

#[test]
fn senseless_values_are_refused_in_one_line() {
    for (args, part) in [
        (&["--port", "70000"][..], "--port"),
        (&["--max-mem-mb", "12"], "--max-mem-mb"),
        (&["--hypervisor", "bochs"], "--hypervisor"),
        (&["--admin-email", "a@b.c"], "ADMIN_PASSWORD"),
        (&["--storage-root", "here"], "STORAGE_ROOT"),
        (&["--db-dialect", "postgres"], "DATABASE_URL"),
        (&["--kernel-path", "/nowhere/vmlinux"], "KERNEL_PATH"),
        (&["--trusted-proxies", "nobody"], "--trusted-proxies"),
        (&["--vm-subnet", "8.8.8.0/24"], "--vm-subnet"),
        (&["--api-key", "a b"], "API_KEY"),
        (&["--api-key", " "], "--api-key"),
        (&["--kernel-path="], "--kernel-path"),
        (&["--admin-email="], "--admin-email"),
        (&["--jailer-uid", "0"], "--jailer-uid"),
        (&["--jailer-gid", "4294967295"], "--jailer-gid"),
    ] {
        let refused = parse(command(), args).unwrap_err();
        assert!(refused.contains(part) && !refused.contains('\n'), "{args:?}: {refused}");
    }
}

#[test]
fn secrets_are_not_in_any_text() {
    let config =
        parse(command(), &["--api-key", "sesame", "--admin-email", "a@b", "--admin-password", "sesame"]).unwrap();
    assert!(!format!("{config:?}").contains("sesame"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rds.toml");
    std::fs::write(&file, "api_key = \"sesame\"\n").unwrap();
    assert!(!with_file(command(), &file).unwrap().render_long_help().to_string().contains("sesame"));
}

#[test]
fn users_of_monitors_are_as_they_were_unless_others_are_set() {
    let users = |arguments: &[&str]| {
        let config = parse(command(), &[&["--api-key", "k"], arguments].concat());
        config.map(|config| MonitorUsers::of(&config.hypervisor).all())
    };
    assert_eq!(users(&[]).unwrap(), 199_999..=265_535);
    assert_eq!(users(&["--vm-first-uid", "4294901759"]).unwrap(), 4_294_901_758..=4_294_967_294);
    for wrong in ["0", "65536", "4294901760"] {
        assert!(users(&["--vm-first-uid", wrong]).is_err(), "{wrong}");
    }
}

/// The committed page. `UPDATE_DOCS=1 cargo test` writes it anew.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

#[test]
fn the_page_of_settings_is_current() {
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(written == page, "docs/configuration.md is stale: run UPDATE_DOCS=1 cargo test -p rds-manager config");
}

fn page() -> String {
    let mut page = String::from(
        "# Settings of the server\n\n\
         Each is a flag, an environment variable and a key of the TOML file that `--config` or `RDS_CONFIG` names; a flag \
         wins over the environment, the environment over the file. The key is the variable's name in lower case. A variable \
         or a key that is blank is as good as not set. A value that makes no sense stops the start with one line that says \
         which and why.\n\n\
         | variable | flag | default | what |\n|---|---|---|---|\n",
    );
    for arg in command().get_arguments() {
        let variable = arg.get_env().unwrap().to_str().unwrap();
        assert!(variable.to_lowercase() == arg.get_id().as_str() || arg.get_id() == "config", "{variable}");
        let values = arg.get_default_values().iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        let default = if values.is_empty() { String::new() } else { format!("`{}`", values.join(",")) };
        let mut help = arg.get_help().unwrap().to_string().replace('|', "\\|");
        let choices: Vec<_> = arg.get_possible_values().iter().filter(|one| !one.is_hide_set()).map(choice).collect();
        if !choices.is_empty() {
            help += &format!(" ({})", choices.join(", "));
        }
        page += &format!("| `{variable}` | `--{}` | {default} | {help} |\n", arg.get_long().unwrap());
    }
    page
}

fn choice(value: &clap::builder::PossibleValue) -> String {
    format!("`{}`", value.get_name())
}
