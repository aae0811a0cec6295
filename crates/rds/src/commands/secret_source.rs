//! Where values of secrets come from: the environment, a file or standard input, never an argument, for other users of
//! the machine can see arguments.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::CliError;

/// A VM's secrets. Of a name that is there twice the last one counts, files after variables.
#[derive(Debug, Args)]
pub(crate) struct SecretSource {
    /// Name of a variable of this process's environment to give to the VM as a secret; may be repeated
    #[arg(long = "secret", value_name = "NAME")]
    variables: Vec<String>,
    /// File with secrets, a line NAME=value for each (empty lines and those that begin with # are skipped), or - for
    /// standard input; may be repeated
    #[arg(long = "secret-file", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl SecretSource {
    /// Whether nothing was named.
    pub(crate) fn is_empty(&self) -> bool {
        self.variables.is_empty() && self.files.is_empty()
    }

    /// The secrets as `NAME=value`.
    pub(crate) fn read(&self) -> Result<Vec<String>, CliError> {
        let mut secrets: Vec<String> = self.variables.iter().map(|name| variable(name)).collect::<Result<_, _>>()?;
        for file in &self.files {
            secrets.extend(lines(&read_text(file)?).map_err(|line| malformed(file, line))?);
        }
        Ok(secrets)
    }
}

/// The text of a file, or of standard input for `-`.
pub(crate) fn read_text(file: &Path) -> Result<String, CliError> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file).map_err(CliError::file(file));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(CliError::file("standard input"))?;
    Ok(text)
}

fn variable(name: &str) -> Result<String, CliError> {
    let missing =
        |_| CliError::Usage(format!("there is no variable `{name}` in the environment to take a secret from"));
    std::env::var(name).map(|value| format!("{name}={value}")).map_err(missing)
}

/// The secrets in a text; the number of the first line that is none, if there is one.
fn lines(text: &str) -> Result<Vec<String>, usize> {
    let told = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    told.map(|(index, line)| if line.contains('=') { Ok(line.to_owned()) } else { Err(index + 1) }).collect()
}

/// The line itself may be a secret.
fn malformed(file: &Path, line: usize) -> CliError {
    CliError::Usage(format!("{}: line {line} is not NAME=value", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_secret_in_each_line() {
        assert_eq!(lines("# mail\nA=1\n\n  \nB=x = y \r\nC=").unwrap(), ["A=1", "B=x = y ", "C="]);
        assert_eq!(lines("A=1\nhunter2\n"), Err(2));
        assert!(!malformed(Path::new("f"), 2).to_string().contains("hunter2"));
    }

    #[test]
    fn a_variable_that_is_not_there_is_told() {
        assert_eq!(variable("RDS_NO_SUCH_VARIABLE").unwrap_err().exit_code(), 2);
        assert!(variable("PATH").unwrap().starts_with("PATH="));
    }
}
