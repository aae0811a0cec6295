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
    /// Port on loopback where the program can call peers, if the VM has any.
    pub(super) bridge_port: Option<u16>,
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
    let is_deno = matches!(start.program, Program::Deno { .. });
    let mut environment = environment(setting.has_bash, is_deno);
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
            let file = place(source, "ts", setting, &mut directory, &mut script)?;
            ("deno", deno_arguments(&file, setting.result_file, args, flags, network(*allow_net, setting.bridge_port)))
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

/// What every program finds in its environment.
pub(crate) fn environment(has_bash: bool, is_deno: bool) -> BTreeMap<String, String> {
    let shell = if has_bash { "/bin/bash" } else { "/bin/sh" };
    let mut variables: BTreeMap<_, _> = [
        ("HOME", "/home/user"),
        ("USER", "user"),
        ("PATH", PATH),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
        ("SHELL", shell),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if is_deno {
        variables.insert("NO_COLOR".into(), "1".into());
        variables.insert("DENO_DIR".into(), format!("/{DENO_CACHE}"));
    }
    variables
}

fn variable_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.contains('=') {
        return Err("an environment variable's name is empty or has an equals sign".into());
    }
    Ok(name.to_owned())
}

/// Text that is handed to a program; `what` names it to the client.
pub(crate) fn c_string(what: &str, text: String) -> Result<CString, String> {
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

/// What a Deno program may connect to, as far as Deno is concerned; the firewall applies.
#[derive(Clone, Copy)]
pub(crate) enum Network {
    /// Everything.
    All,
    /// This port on loopback alone, where the VM's peers are called.
    Bridge(u16),
    /// Nothing.
    None,
}

/// `deno run` with what section 3 of the wire contract lets a program do.
pub(crate) fn deno_permissions(result_file: Option<&str>, network: Network) -> Vec<String> {
    const WRITABLE: &str = "/workspace,/tmp,/var/tmp";
    const READABLE: &str = "/etc/resolv.conf,/etc/hosts,/etc/ssl/certs,/usr/share/ca-certificates";
    let mut arguments: Vec<String> = ["deno", "run", "--quiet", "--no-prompt", "--allow-env"].map(String::from).into();
    arguments.push(format!("--allow-read={WRITABLE},{READABLE}"));
    arguments.push(match result_file {
        Some(file) => format!("--allow-write={WRITABLE},{file}"),
        None => format!("--allow-write={WRITABLE}"),
    });
    match network {
        Network::All => arguments.push("--allow-net".into()),
        Network::Bridge(port) => arguments.push(format!("--allow-net=127.0.0.1:{port}")),
        Network::None => {}
    }
    arguments
}

fn network(allowed: bool, bridge_port: Option<u16>) -> Network {
    match (allowed, bridge_port) {
        (true, _) => Network::All,
        (false, Some(port)) => Network::Bridge(port),
        (false, None) => Network::None,
    }
}

fn deno_arguments(file: &str, result_file: &str, args: &[String], flags: &[String], network: Network) -> Vec<String> {
    let mut arguments = deno_permissions(Some(result_file), network);
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

#[cfg(test)]
mod tests {
    use super::*;
    use rds_protocol::exec::Stdin;

    fn start(program: Program) -> Start {
        Start { program, cwd: None, env: BTreeMap::new(), timeout_ms: None, stdin: Stdin::Closed, output_limit: None }
    }

    fn deno(source: Source) -> Program {
        Program::Deno { source, args: vec!["-x".into()], flags: vec!["--v8-flags=--y".into()], allow_net: false }
    }

    fn rendered(start: &Start, secrets: &BTreeMap<String, String>) -> Result<Command, String> {
        let setting = Setting {
            has_bash: true,
            secrets,
            result_file: "/run/rds/results/r",
            bridge_port: None,
            script_name: ".rds-s",
        };
        render(start, &setting)
    }

    fn text(strings: &[CString]) -> Vec<&str> {
        strings.iter().map(|string| string.to_str().unwrap()).collect()
    }

    #[test]
    fn a_command_line_goes_to_the_shell_as_it_is() {
        let command = rendered(&start(Program::Shell { cmd: "echo '$x'; -c".into() }), &BTreeMap::new()).unwrap();
        assert_eq!(command.executable, "bash");
        assert_eq!(text(&command.arguments), ["bash", "-c", "echo '$x'; -c"]);
        assert_eq!(command.directory.to_str(), Ok("/workspace"));
        assert!(command.script.is_none());
        assert_eq!(
            text(&command.environment),
            [
                "HOME=/home/user",
                "LANG=C.UTF-8",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "SHELL=/bin/bash",
                "TMPDIR=/tmp",
                "USER=user",
            ]
        );
    }

    #[test]
    fn a_secret_wins_over_a_call_and_a_call_over_the_rest() {
        let mut order = start(Program::Shell { cmd: "env".into() });
        order.env = [("KEY", "call"), ("USER", "somebody")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let secrets = [("KEY".to_owned(), "secret".to_owned())].into();
        let command = rendered(&order, &secrets).unwrap();
        let environment = text(&command.environment);
        assert!(environment.contains(&"KEY=secret") && environment.contains(&"USER=somebody"));
        assert!(!environment.contains(&"KEY=call") && !environment.contains(&"USER=user"));
    }

    #[test]
    fn deno_is_given_what_the_contract_says() {
        let command = rendered(&start(deno(Source::Inline { code: "1".into() })), &BTreeMap::new()).unwrap();
        assert_eq!(
            text(&command.arguments),
            [
                "deno",
                "run",
                "--quiet",
                "--no-prompt",
                "--allow-env",
                "--allow-read=/workspace,/tmp,/var/tmp,/etc/resolv.conf,/etc/hosts,/etc/ssl/certs,/usr/share/ca-certificates",
                "--allow-write=/workspace,/tmp,/var/tmp,/run/rds/results/r",
                "--preload=/run/rds/deno.mjs",
                "--v8-flags=--y",
                "/workspace/.rds-s.ts",
                "-x",
            ]
        );
        let script = command.script.unwrap();
        assert_eq!((script.name(), script.text.as_str()), (".rds-s.ts", "1"));
        assert!(text(&command.environment).contains(&"RDS_RESULT=/run/rds/results/r"));
    }

    #[test]
    fn a_file_is_run_in_its_directory_unless_the_call_says_otherwise() {
        let mut order = start(deno(Source::Path { path: "/workspace/a/b.ts".into() }));
        let command = rendered(&order, &BTreeMap::new()).unwrap();
        assert_eq!(command.directory.to_str(), Ok("/workspace/a"));
        assert!(command.script.is_none());
        order.cwd = Some("/tmp".into());
        assert_eq!(rendered(&order, &BTreeMap::new()).unwrap().directory.to_str(), Ok("/tmp"));
    }

    #[test]
    fn what_can_not_be_handed_to_a_program_is_refused() {
        let shell = |cmd: String| start(Program::Shell { cmd });
        let mut named = shell("true".into());
        named.env.insert("A=B".into(), "c".into());
        let relative = start(deno(Source::Path { path: "--allow-all".into() }));
        for order in [shell("a\0b".into()), shell("a".repeat(200_000)), named, relative] {
            assert!(rendered(&order, &BTreeMap::new()).is_err());
        }
    }
}
