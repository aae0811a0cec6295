//! One program, from its start to the report of its end.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use rds_protocol::exec::{AgentFrame, Exit, Program, Source, Start};
use rustix::fs::AtFlags;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::Instant;

use super::command::{self, Setting};
use super::input::Input;
use super::outcome::{Outcome, OutcomeFile};
use super::streams::{self, AgentSide};
use crate::agent::Vm;
use crate::random;
use crate::reaper::Ended;
use crate::reply::{ClientFrames, FrameSender, Refusal};
use crate::sandbox::fork;
use crate::sandbox::launch::{Child, Executable, Launch, LaunchError, Script, Step};

/// A program that runs.
pub(super) struct Run {
    child: Child,
    agent_side: AgentSide,
    deadline: Option<Instant>,
    outcome: Option<OutcomeFile>,
    script: Option<ScriptFile>,
}

/// How a program came to its end.
enum End {
    /// By itself or by a signal.
    Natural(Ended),
    /// It was killed at its time limit.
    TimedOut(Ended),
    /// It was killed because its client had gone.
    Abandoned,
}

/// An inline script, which is removed whatever becomes of its program.
///
/// Its name is used again for a later one: the runtimes keep what they compiled by a program's name, for ever.
struct ScriptFile {
    vm: Rc<Vm>,
    name: String,
}

impl ScriptFile {
    /// A name, without extension, that nobody could have guessed before it was first used.
    fn name(vm: &Vm) -> String {
        vm.script_names.borrow_mut().pop().unwrap_or_else(|| format!(".rds-{}", random::name()))
    }
}

impl Drop for ScriptFile {
    fn drop(&mut self) {
        let workspace = &self.vm.sandbox.tree.workspace;
        let remove = || rustix::fs::unlinkat(workspace, &self.name, AtFlags::empty());
        if self.vm.freezing.get() > 0 {
            // A disk that is held still lets nobody remove anything, and it is the agent that is to be told to let go. Its
            // copy can wait; when that is done is not known, so the name is given up.
            let _ = fork(None, &[workspace.as_raw_fd()], || i32::from(remove().is_err()));
            return;
        }
        let removed = remove();
        // A name that something else has taken is given up.
        if removed.is_ok()
            && let Some((name, _extension)) = self.name.rsplit_once('.')
        {
            self.vm.script_names.borrow_mut().push(name.to_owned());
        }
    }
}

impl Run {
    /// Starts a program as a client asked.
    pub(super) async fn start(vm: Rc<Vm>, start: &Start) -> Result<Self, Refusal> {
        let result_name = random::name();
        let script_name = if is_inline(&start.program) { ScriptFile::name(&vm) } else { String::new() };
        let command = {
            let secrets = vm.secrets.borrow();
            let setting = Setting {
                has_bash: vm.sandbox.tree.has_bash,
                secrets: secrets.variables(),
                result_file: &OutcomeFile::path(&result_name),
                bridge_port: vm.bridge.port(),
                script_name: &script_name,
            };
            command::render(start, &setting).map_err(Refusal::bad)?
        };
        let outcome = match start.program {
            Program::Shell { .. } => None,
            _ => Some(OutcomeFile::make(Rc::clone(&vm), result_name).map_err(Refusal::internal)?),
        };
        let connected = streams::connect(start, &vm.sandbox.tree.terminals);
        let (streams, agent_side) = connected.map_err(Refusal::internal)?;
        let script_file = |script: &Script| ScriptFile { vm: Rc::clone(&vm), name: script.name().to_owned() };
        let script = command.script.as_ref().map(script_file);
        let launch = Launch {
            executable: Executable::Named(command.executable),
            arguments: command.arguments,
            environment: command.environment,
            directory: command.directory,
            streams,
            script: command.script,
        };
        let launched = vm.sandbox.launch(&vm.keepers, launch).await;
        let child = launched.map_err(|error| refusal(&error, command.executable))?;
        let deadline = start.timeout_ms.map(|limit| child.started + Duration::from_millis(limit));
        Ok(Self { child, agent_side, deadline, outcome, script })
    }

    /// Carries its streams and waits for its end, then reports it.
    pub(super) async fn carry_out(mut self, frames: ClientFrames, client: FrameSender) {
        let AgentSide { stdin, terminal, outputs } = self.agent_side;
        let input = Input { group: self.child.pid, stdin, terminal };
        let input = tokio::task::spawn_local(input.carry(frames));
        let (announce, program_ended) = watch::channel(false);
        let outputs = futures_util::future::join_all(
            outputs.into_iter().map(|output| output.carry(&client, program_ended.clone())),
        );
        let end = async {
            let end = wait(&mut self.child, self.deadline, &client).await;
            input.abort();
            let _ = announce.send(true);
            end
        };
        let (end, truncated) = tokio::join!(end, outputs);
        let outcome = self.outcome.take().map(|mut file| file.read()).unwrap_or_default();
        drop(self.script.take());
        if let Some(exit) = report(&end, &self.child, outcome, truncated.contains(&true)) {
            let frame = AgentFrame::Exit(Box::new(exit)).encode().to_bytes();
            if client.send(Ok(frame)).await.is_ok() {
                drop(client);
                // The reply goes out first: the agent has one thread, and a cgroup is not removed and made in no time.
                tokio::task::yield_now().await;
                self.child.leave();
            }
        }
    }
}

fn is_inline(program: &Program) -> bool {
    match program {
        Program::Shell { .. } => false,
        Program::Deno { source, .. } | Program::Node { source, .. } => matches!(source, Source::Inline { .. }),
    }
}

/// Waits until the program has ended, and sees to it that it does at its time limit and when its client goes.
async fn wait(child: &mut Child, deadline: Option<Instant>, client: &FrameSender) -> End {
    let time_limit = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let timed_out = tokio::select! {
        biased;
        ended = child.end() => return End::Natural(ended),
        () = time_limit => true,
        () = client.closed() => false,
    };
    child.kill();
    let ended = child.end().await;
    if timed_out { End::TimedOut(ended) } else { End::Abandoned }
}

fn report(end: &End, child: &Child, outcome: Outcome, truncated: bool) -> Option<Exit<Box<RawValue>>> {
    let (ended, timed_out) = match end {
        End::Natural(ended) => (ended, false),
        End::TimedOut(ended) => (ended, true),
        End::Abandoned => return None,
    };
    let exit_code = match ended.code {
        _ if timed_out => -1,
        // `result.error` says that the program failed, whatever it says itself.
        0 if outcome.error.is_some() => 1,
        code => code,
    };
    let duration = ended.at.duration_since(child.started.into_std());
    Some(Exit {
        exit_code,
        timed_out,
        truncated,
        duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        result: outcome.result,
        error: outcome.error,
    })
}

/// What a client is told about a program that could not be started.
fn refusal(failed: &LaunchError, program: &str) -> Refusal {
    let error = &failed.error;
    let code = error.raw_os_error();
    match failed.step {
        Step::Directory => Refusal::bad(format!("the working directory can't be entered: {error}")),
        Step::Script if code == Some(libc::ENOSPC) => Refusal::full("the VM's disk is full"),
        Step::Script => Refusal::internal(format!("cannot write the script: {error}")),
        Step::Execute if code == Some(libc::ENOENT) => Refusal::bad(format!("the image has no {program}")),
        Step::Execute if code == Some(libc::E2BIG) => {
            Refusal::bad("the arguments and environment variables together are longer than the kernel takes")
        }
        Step::Execute => Refusal::internal(format!("cannot run {program}: {error}")),
        Step::Enter | Step::Terminal => Refusal::internal(format!("cannot start {program}: {error}")),
    }
}
