//! The configuration file: its values become the defaults of the flags, so that flags and environment win over it.

use std::path::Path;

use clap::Command;
use toml::{Table, Value};

use super::ConfigError;

/// Makes the file's values the defaults of the command's flags. A key that no flag has is refused by name; one whose text is
/// blank is as good as not there.
pub fn with_file(command: Command, path: &Path) -> Result<Command, ConfigError> {
    let refuse = |why: String| ConfigError(format!("configuration file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| refuse(error.message().replace('\n', " ")))?;
    let mut command = command;
    for (key, value) in table {
        if key == "config" || !command.get_arguments().any(|arg| arg.get_id() == key.as_str()) {
            return Err(refuse(format!("unknown setting `{}`", key.escape_debug())));
        }
        if value.as_str().is_some_and(|text| text.trim().is_empty()) {
            continue;
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
