//! The configuration file: its values become the defaults of the flags, so that flags and environment win over it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Command;
use toml::{Table, Value};

use super::ConfigError;

/// The configuration file that a command line or the environment names, found before the command line is parsed.
pub fn path_from(args: impl IntoIterator<Item = OsString>) -> Option<PathBuf> {
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            break;
        }
        if arg == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = arg.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    std::env::var_os("RDS_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Makes the file's values the defaults of the command's flags. A key that no flag has is refused by name.
pub fn with_file(command: Command, path: &Path) -> Result<Command, ConfigError> {
    let refuse = |why: String| ConfigError(format!("configuration file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| refuse(error.message().to_owned()))?;
    let mut command = command;
    for (key, value) in table {
        if key == "config" || !command.get_arguments().any(|arg| arg.get_id() == key.as_str()) {
            return Err(refuse(format!("unknown setting `{key}`")));
        }
        let values = as_text(&value).ok_or_else(|| refuse(format!("`{key}` must be text, a number, true or false")))?;
        command = command.mut_arg(&key, |arg| {
            let hidden = arg.is_hide_env_values_set();
            arg.default_values(values).hide_default_value(hidden)
        });
    }
    Ok(command)
}

fn as_text(value: &Value) -> Option<Vec<String>> {
    Some(match value {
        Value::String(text) => vec![text.clone()],
        Value::Integer(number) => vec![number.to_string()],
        Value::Boolean(truth) => vec![truth.to_string()],
        Value::Array(items) => items.iter().map(as_text).collect::<Option<Vec<_>>>()?.concat(),
        _ => return None,
    })
}

/// The first line of a command-line error, which says which value is wrong and why.
pub fn one_line(error: &clap::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
