//! From the words of a command line, the environment and the configuration file to what they say; where a value came from
//! that makes no sense.

use std::error::Error as _;
use std::ffi::OsString;
use std::path::Path;

use clap::builder::{OsStringValueParser, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::error::CliError;

/// The command without the variables that are set to nothing, as `${NAME:-}` in a script sets them: they are as good as
/// not set.
pub(crate) fn without_blank_variables(command: Command) -> Command {
    with_args(command, &|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let blank = value.is_some_and(|value| value.to_str().is_some_and(|text| text.trim().is_empty()));
        if blank { arg.env(Resettable::Reset) } else { arg }
    })
}

/// Changes every argument of a command and of those below it.
fn with_args(command: Command, change: &dyn Fn(Arg) -> Arg) -> Command {
    command.mut_args(change).mut_subcommands(|below| with_args(below, change))
}

/// What was said, whatever its values are worth.
#[derive(Debug)]
pub(crate) struct Said {
    /// The names of the command, outermost first.
    path: Vec<String>,
    /// What that command was told.
    matches: ArgMatches,
}

impl Said {
    /// Reads as much as can be read; nothing where help or the version is asked for.
    pub(crate) fn by(words: &[OsString], command: &Command) -> Option<Self> {
        let anything = |arg: Arg| match arg.get_action().takes_values() {
            true => arg.value_parser(OsStringValueParser::new()),
            false => arg,
        };
        let credulous = with_args(command.clone(), &anything).ignore_errors(true);
        let mut matches = credulous.try_get_matches_from(words).ok()?;
        let mut path = Vec::new();
        while let Some((name, below)) = matches.remove_subcommand() {
            path.push(name);
            matches = below;
        }
        Some(Self { path, matches })
    }

    /// Whether this is the command.
    pub(crate) fn is(&self, path: &[&str]) -> bool {
        self.path == path
    }

    /// The configuration file, if the command has one.
    pub(crate) fn file(&self) -> Option<&Path> {
        let named = self.matches.try_get_one::<OsString>("config").ok().flatten();
        named.map(Path::new)
    }

    /// One line about a value that makes no sense; nothing if the error is about something else. `command` is the one that
    /// found the error.
    pub(crate) fn senseless(&self, error: &clap::Error, command: &Command) -> Option<CliError> {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        };
        match error.kind() {
            ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
                let flag = text(ContextKind::InvalidArg)?.split(' ').next()?;
                let why = match (error.source(), error.get(ContextKind::ValidValue)) {
                    (Some(source), _) => format!(": {source}"),
                    (None, Some(ContextValue::Strings(choices))) if !choices.is_empty() => {
                        format!("; it can be one of {}", choices.join(", "))
                    }
                    _ => String::new(),
                };
                Some(CliError::Usage(match text(ContextKind::InvalidValue)? {
                    // A variable or key that is blank was not even looked at.
                    "" => format!("{flag} needs a value{why}"),
                    value => format!("{}: {value:?} makes no sense{why}", self.place(flag, command)),
                }))
            }
            // It does not say of which.
            ErrorKind::InvalidUtf8 => {
                let is_text = |arg: &&Arg| {
                    let raw = self.matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
                    raw.is_none_or(|mut values| values.all(|value| value.to_str().is_some()))
                };
                let flag = self.own(command).get_arguments().find(|arg| !is_text(arg))?.get_long()?;
                Some(CliError::Usage(format!("{}: not UTF-8", self.place(&format!("--{flag}"), command))))
            }
            _ => None,
        }
    }

    /// The command that was named.
    fn own<'a>(&self, command: &'a Command) -> &'a Command {
        self.path.iter().fold(command, |command, name| command.find_subcommand(name).unwrap_or(command))
    }

    /// Where the value of a flag came from: the flag, the variable or the key of the file.
    fn place(&self, flag: &str, command: &Command) -> String {
        let is_it = |arg: &&Arg| arg.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
        let Some(arg) = self.own(command).get_arguments().find(is_it) else { return flag.to_owned() };
        match (self.matches.value_source(arg.get_id().as_str()), arg.get_env()) {
            (Some(ValueSource::CommandLine), _) => flag.to_owned(),
            (Some(ValueSource::EnvVariable), Some(variable)) => variable.to_string_lossy().into_owned(),
            // The defaults of the program itself make sense.
            _ => format!("`{}` in the configuration file", arg.get_id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::value_parser;

    use super::*;

    fn command() -> Command {
        let number = Arg::new("max_cpu").long("max-cpu").value_parser(value_parser!(u32).range(1..=32));
        let kind = Arg::new("kind").long("kind").value_parser(["a", "b"]);
        let serve = Command::new("serve").args([number, kind, Arg::new("config").long("config")]);
        let exec = Command::new("exec").arg(Arg::new("words").last(true).num_args(0..));
        Command::new("rds").subcommands([serve, exec]).arg(Arg::new("url").long("url").global(true))
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn refused(line: &str, command: Command) -> String {
        let said = Said::by(&words(line), &command).unwrap();
        let mut command = command;
        let error = command.try_get_matches_from_mut(words(line)).unwrap_err();
        said.senseless(&error, &command).unwrap().to_string()
    }

    #[test]
    fn the_command_and_its_file_are_found_however_wrong_the_rest_is() {
        let said = |line| Said::by(&words(line), &command());
        let serve = said("rds --url exec serve --max-cpu many --config f --what").unwrap();
        assert!(serve.is(&["serve"]) && serve.file() == Some(Path::new("f")));
        let exec = said("rds exec -- serve --config f").unwrap();
        assert!(exec.is(&["exec"]) && exec.file().is_none());
        assert!(said("rds serve --help").is_none());
    }

    #[test]
    fn a_value_that_makes_no_sense_is_told_in_one_line() {
        assert_eq!(
            refused("rds serve --max-cpu 33", command()),
            "--max-cpu: \"33\" makes no sense: 33 is not in 1..=32"
        );
        assert_eq!(refused("rds serve --kind c", command()), "--kind: \"c\" makes no sense; it can be one of a, b");
        assert_eq!(refused("rds serve --max-cpu", command()), "--max-cpu needs a value");
        assert!(!refused("rds serve --max-cpu a\nb", command()).contains('\n'));
        let filed = command().mut_subcommand("serve", |serve| serve.mut_arg("max_cpu", |arg| arg.default_value("0")));
        // The file is read after the command is known, so these words are read without it.
        let said = Said::by(&words("rds serve"), &command()).unwrap();
        let mut filed = filed;
        let error = filed.try_get_matches_from_mut(words("rds serve")).unwrap_err();
        assert_eq!(
            said.senseless(&error, &filed).unwrap().to_string(),
            "`max_cpu` in the configuration file: \"0\" makes no sense: 0 is not in 1..=32"
        );
    }
}
