//! From a request to an argument vector, an environment and a working directory. Pure.

use std::collections::BTreeMap;
use std::ffi::CString;

use rds_protocol::exec::{Program, Source, Start};

use crate::runtime::{DENO_PRELUDE, NODE_PRELUDE, RESULT_VARIABLE, SCRIPT_VARIABLE};
use crate::sandbox::launch::{PATH, Script};
use crate::sandbox::tree::DENO_CACHE;

/// The user's files.
const WORKSPACE: &str = "/workspace";

/// Longest single argument or variable that the kernel takes (MAX_ARG_STRLEN, execve(2)).
const MAX_STRING: usize = 131_071;

/// What the image has to offer and this run has been given.
pub(super) struct Setting<'a> {
    /// Whether there is `bash`.
    pub(super) has_bash: bool,
    /// Variables of the VM's secrets.
    pub(super) secrets: &'a BTreeMap<String, String>,
    /// Where in the sandbox the result goes.
    pub(super) result_file: &'a str,
    /// A name, without extension, for a file in [`WORKSPACE`] that nobody can guess.
    pub(super) script_name: &'a str,
}

/// A rendered command.
pub(super) struct Command {
    pub(super) executable: &'static str,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) directory: CString,
    pub(super) script: Option<Script>,
}

/// Renders a request. The error is for the client.
pub(super) fn render(start: &Start, setting: &Setting<'_>) -> Result<Command, String> {
    let mut environment = base_environment(setting.has_bash);
    for (name, value) in start.env.iter().chain(setting.secrets) {
        environment.insert(variable_name(name)?, value.clone());
    }
    let mut directory = WORKSPACE.to_owned();
    let mut script = None;
    let (executable, arguments) = match &start.program {
        Program::Shell { cmd } => {
            let shell = if setting.has_bash { "bash" } else { "sh" };
            (shell, vec![shell.into(), "-c".into(), cmd.clone()])
        }
        Program::Deno { source, args, flags, allow_net } => {
            environment.insert("NO_COLOR".into(), "1".into());
            environment.insert("DENO_DIR".into(), format!("/{DENO_CACHE}"));
            let file = place(source, "ts", setting, &mut directory, &mut script)?;
            ("deno", deno_arguments(&file, setting.result_file, args, flags, *allow_net))
        }
        Program::Node { source, args, flags } => {
            let file = place(source, "js", setting, &mut directory, &mut script)?;
            if script.is_some() {
                environment.insert(SCRIPT_VARIABLE.into(), file.clone());
            }
            ("node", node_arguments(&file, args, flags))
        }
    };
    if !matches!(start.program, Program::Shell { .. }) {
        environment.insert(RESULT_VARIABLE.into(), setting.result_file.to_owned());
    }
    Ok(Command {
        executable,
        arguments: arguments.into_iter().map(|text| c_string("an argument", text)).collect::<Result<_, _>>()?,
        environment: environment
            .into_iter()
            .map(|(name, value)| c_string("an environment variable", format!("{name}={value}")))
            .collect::<Result<_, _>>()?,
        directory: c_string("the working directory", start.cwd.clone().unwrap_or(directory))?,
        script,
    })
}

fn base_environment(has_bash: bool) -> BTreeMap<String, String> {
    let shell = if has_bash { "/bin/bash" } else { "/bin/sh" };
    [
        ("HOME", "/home/user"),
        ("USER", "user"),
        ("LOGNAME", "user"),
        ("PATH", PATH),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
        ("SHELL", shell),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn variable_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.contains('=') {
        return Err("an environment variable's name is empty or has an equals sign".into());
    }
    Ok(name.to_owned())
}

fn c_string(what: &str, text: String) -> Result<CString, String> {
    if text.len() > MAX_STRING {
        return Err(format!("{what} is longer than the {MAX_STRING} bytes that the kernel takes"));
    }
    CString::new(text).map_err(|_| format!("{what} has a NUL byte"))
}

/// Where the program's text is. An inline one becomes a script, a file's directory becomes the working directory.
fn place(
    source: &Source,
    extension: &str,
    setting: &Setting<'_>,
    directory: &mut String,
    script: &mut Option<Script>,
) -> Result<String, String> {
    match source {
        Source::Inline { code } => {
            let path = format!("{WORKSPACE}/{}.{extension}", setting.script_name);
            *script = Some(Script { path: c_string("the script", path.clone())?, text: code.clone() });
            Ok(path)
        }
        Source::Path { path } => {
            // The runtimes take a leading hyphen for an option.
            let (parent, _) = path.rsplit_once('/').filter(|_| path.starts_with('/')).ok_or("the path is relative")?;
            *directory = if parent.is_empty() { "/".into() } else { parent.to_owned() };
            Ok(path.clone())
        }
    }
}

/// `deno run` with what section 3 of the wire contract lets a program do.
fn deno_arguments(file: &str, result_file: &str, args: &[String], flags: &[String], allow_net: bool) -> Vec<String> {
    const WRITABLE: &str = "/workspace,/tmp,/var/tmp";
    const READABLE: &str = "/etc/resolv.conf,/etc/hosts,/etc/ssl/certs,/usr/share/ca-certificates";
    let mut arguments: Vec<String> = ["deno", "run", "--quiet", "--no-prompt", "--allow-env"].map(String::from).into();
    arguments.push(format!("--allow-read={WRITABLE},{READABLE}"));
    arguments.push(format!("--allow-write={WRITABLE},{result_file}"));
    if allow_net {
        arguments.push("--allow-net".into());
    }
    arguments.push(format!("--preload={DENO_PRELUDE}"));
    arguments.extend_from_slice(flags);
    arguments.push(file.to_owned());
    arguments.extend_from_slice(args);
    arguments
}

fn node_arguments(file: &str, args: &[String], flags: &[String]) -> Vec<String> {
    let mut arguments = vec!["node".to_owned(), format!("--require={NODE_PRELUDE}")];
    arguments.extend_from_slice(flags);
    arguments.push(file.to_owned());
    arguments.extend_from_slice(args);
    arguments
}
