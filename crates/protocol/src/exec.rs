//! Running a program in a guest.
//!
//! One request runs one program. The request body is a stream of frames that begins with [`ClientFrame::Start`]; the
//! reply is a stream of frames that ends with [`AgentFrame::Exit`]. Both run at once, so that a terminal works.
//!
//! Dropping the request before the exit frame kills the program and everything it started.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::frame::{Frame, FrameError};
use crate::limits::{FRAME_BYTES, JSON_FRAME_BYTES};

/// What to run and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// The program.
    pub program: Program,
    /// Working directory; `/workspace` if absent. For [`Program::Deno`] and [`Program::Node`] with a path, the
    /// directory of that file if absent.
    pub cwd: Option<String>,
    /// Variables of this call. A secret of the VM wins over one of the same name.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Time limit in milliseconds; none if absent. At the limit all descendants are killed.
    pub timeout_ms: Option<u64>,
    /// Where its input comes from.
    pub stdin: Stdin,
    /// Bytes of each of stdout and stderr to send; the rest is read and dropped. No bound if absent.
    pub output_limit: Option<u64>,
}

/// A program's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Stdin {
    /// At its end from the start.
    Closed,
    /// Fed by [`ClientFrame::Stdin`].
    Pipe,
    /// A terminal of this size; stdout and stderr are the terminal too and arrive as stdout.
    Terminal(TerminalSize),
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Width.
    pub cols: u16,
    /// Height.
    pub rows: u16,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Program {
    /// `sh -c CMD` (`bash` where the image has it).
    Shell {
        /// The command line.
        cmd: String,
    },
    /// TypeScript or JavaScript under Deno, with the global `result`.
    Deno {
        /// What to run.
        source: Source,
        /// Arguments of the program.
        args: Vec<String>,
        /// Further flags of `deno run`, before the file.
        flags: Vec<String>,
        /// Whether the program may use the network; the VM's firewall applies in any case.
        #[serde(rename = "allowNet")]
        allow_net: bool,
    },
    /// JavaScript under Node.js, with the global `result`.
    Node {
        /// What to run.
        source: Source,
        /// Arguments of the program.
        args: Vec<String>,
        /// Further flags of `node`, before the file.
        flags: Vec<String>,
    },
}

/// Where a program's text is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Source {
    /// The text itself. It is run as a module that lies in `/workspace`.
    Inline {
        /// The text.
        code: String,
    },
    /// An absolute path under `/workspace`.
    Path {
        /// The path.
        path: String,
    },
}

/// How a program ended. What it left is a `V`: an agent keeps the text, for a tree can take a hundred times the memory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(serialize = "V: Serialize", deserialize = "V: Deserialize<'de>"))]
pub struct Exit<V = Value> {
    /// Exit status; 128 + signal if a signal ended it; -1 at the time limit.
    pub exit_code: i32,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// Whether output was dropped for [`Start::output_limit`].
    pub truncated: bool,
    /// From just before the program was started to its end, in microseconds.
    pub duration_us: u64,
    /// What the program gave to `result.set`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    pub result: Option<V>,
    /// What the program gave to `result.error`, or its uncaught exception.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    pub error: Option<V>,
}

/// Keeps a present `null` apart from an absent value.
mod present {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<V: Serialize, S: Serializer>(value: &Option<V>, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    pub(super) fn deserialize<'de, V: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<V>, D::Error> {
        V::deserialize(from).map(Some)
    }
}

/// A frame from the manager to the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientFrame {
    /// The first frame.
    Start(Box<Start>),
    /// Bytes for standard input.
    Stdin(bytes::Bytes),
    /// The end of standard input.
    StdinEnd,
    /// The terminal has another size now.
    Resize(TerminalSize),
    /// Send this signal number to the program's process group.
    Signal(i32),
}

/// A frame from the agent to the manager.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentFrame<V = Value> {
    /// Bytes of standard output.
    Stdout(bytes::Bytes),
    /// Bytes of standard error.
    Stderr(bytes::Bytes),
    /// The last frame.
    Exit(Box<Exit<V>>),
}

const START: u8 = 0x01;
const STDIN: u8 = 0x02;
const STDIN_END: u8 = 0x03;
const RESIZE: u8 = 0x04;
const SIGNAL: u8 = 0x05;
const STDOUT: u8 = 0x11;
const STDERR: u8 = 0x12;
const EXIT: u8 = 0x13;

/// Largest payload that a frame of this kind may have; `None` for a kind that does not exist.
pub(crate) fn max_payload(kind: u8) -> Option<usize> {
    match kind {
        START | EXIT => Some(JSON_FRAME_BYTES),
        STDIN | STDOUT | STDERR => Some(FRAME_BYTES),
        STDIN_END => Some(0),
        RESIZE | SIGNAL => Some(64),
        _ => None,
    }
}

impl ClientFrame {
    /// Renders the frame.
    pub fn encode(&self) -> Frame {
        match self {
            Self::Start(start) => Frame::json(START, start),
            Self::Stdin(data) => Frame::new(STDIN, data.clone()),
            Self::StdinEnd => Frame::new(STDIN_END, bytes::Bytes::new()),
            Self::Resize(size) => Frame::json(RESIZE, size),
            Self::Signal(number) => Frame::json(SIGNAL, number),
        }
    }

    /// Reads a frame.
    pub fn decode(frame: Frame) -> Result<Self, FrameError> {
        Ok(match frame.kind {
            START => Self::Start(frame.parse()?),
            STDIN => Self::Stdin(frame.payload),
            STDIN_END => Self::StdinEnd,
            RESIZE => Self::Resize(frame.parse()?),
            SIGNAL => Self::Signal(frame.parse()?),
            kind => return Err(FrameError::Kind(kind)),
        })
    }
}

impl<V: Serialize> AgentFrame<V> {
    /// Renders the frame.
    pub fn encode(&self) -> Frame {
        match self {
            Self::Stdout(data) => Frame::new(STDOUT, data.clone()),
            Self::Stderr(data) => Frame::new(STDERR, data.clone()),
            Self::Exit(exit) => Frame::json(EXIT, exit),
        }
    }
}

impl AgentFrame {
    /// Reads a frame.
    pub fn decode(frame: Frame) -> Result<Self, FrameError> {
        Ok(match frame.kind {
            STDOUT => Self::Stdout(frame.payload),
            STDERR => Self::Stderr(frame.payload),
            EXIT => Self::Exit(frame.parse()?),
            kind => return Err(FrameError::Kind(kind)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn start_has_a_stable_shape() {
        let start = Start {
            program: Program::Deno {
                source: Source::Inline { code: "1".into() },
                args: vec![],
                flags: vec![],
                allow_net: false,
            },
            cwd: None,
            env: BTreeMap::new(),
            timeout_ms: Some(1),
            stdin: Stdin::Terminal(TerminalSize { cols: 80, rows: 24 }),
            output_limit: None,
        };
        assert_eq!(
            serde_json::to_value(&start).unwrap(),
            json!({
                "program": {"kind": "deno", "source": {"kind": "inline", "code": "1"}, "args": [], "flags": [], "allowNet": false},
                "cwd": null, "env": {}, "timeoutMs": 1,
                "stdin": {"kind": "terminal", "cols": 80, "rows": 24}, "outputLimit": null
            })
        );
        let frame = ClientFrame::Start(Box::new(start));
        assert_eq!(ClientFrame::decode(frame.encode()).unwrap(), frame);
    }

    #[test]
    fn a_null_result_is_not_an_absent_one() {
        let exit = Exit { result: Some(Value::Null), ..Exit::default() };
        let AgentFrame::Exit(back) = AgentFrame::decode(AgentFrame::Exit(Box::new(exit)).encode()).unwrap() else {
            panic!("another frame");
        };
        assert_eq!((back.result, back.error), (Some(Value::Null), None));
    }

    #[test]
    fn a_double_is_the_same_to_the_last_digit() {
        let text = r#"{"exitCode":0,"timedOut":false,"truncated":false,"durationUs":1,"result":0.9041346886354059}"#;
        let exit: Exit = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&exit).unwrap(), text);
    }

    #[test]
    fn a_frame_of_the_other_direction_is_refused() {
        let frame = AgentFrame::<Value>::Stdout(bytes::Bytes::from_static(b"x")).encode();
        assert!(matches!(ClientFrame::decode(frame), Err(FrameError::Kind(STDOUT))));
    }
}
