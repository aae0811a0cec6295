//! Printing for people and for programs.
//!
//! What a command prints about its work cannot undo the work. So it goes on when that fails, and [`finish`] tells of it in
//! the end, as `close_stdout` does for C's programs. Output that comes as it is made ([`pass`]) is the work itself: it ends
//! with the first failure.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::error::{CliError, chain};

/// Why standard output could not be written, the first time.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) {
    line(&json_text(value));
}

/// A value as indented JSON, harmless for a terminal: what [`printable`] spells out is written as JSON's own escapes.
pub(crate) fn json_text(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("API types have string keys");
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        // A line's end is the indentation's; one in a string is an escape already.
        if c == '\n' || is_harmless(c) {
            harmless.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| harmless.push_str(&format!("\\u{unit:04x}")));
        }
    }
    harmless
}

/// Prints one line.
pub(crate) fn line(text: &str) {
    raw(format!("{text}\n").as_bytes());
}

/// Prints bytes as they are.
pub(crate) fn raw(bytes: &[u8]) {
    if let Err(error) = write(&mut io::stdout(), bytes) {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Tells whether all that was printed was written. A reader that has gone (`| head`) had what it wanted.
pub(crate) fn finish() -> Result<(), CliError> {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failed.map(CliError::output("standard output")) {
        None | Some(CliError::ReaderGone) => Ok(()),
        Some(error) => Err(error),
    }
}

/// Where a program's output goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Passes output on as it comes. Where it cannot be written, nobody needs more of it.
pub(crate) fn pass(stream: Stream, bytes: &[u8]) -> Result<(), CliError> {
    match stream {
        Stream::Out => write(&mut io::stdout(), bytes).map_err(CliError::output("standard output")),
        Stream::Err => write(&mut io::stderr(), bytes).map_err(CliError::output("standard error")),
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Something that people should know, beside what was asked for. There is no place to tell that it could not be told.
pub(crate) fn note(text: &str) {
    let _ = write(&mut io::stderr(), format!("{}\n", printable(text)).as_bytes());
}

/// Prints an error and what to do about it. Its words may be a guest's: further lines of it are indented, so that none
/// passes for a line of this program.
pub(crate) fn failure(error: &CliError) {
    if matches!(error, CliError::ReaderGone) {
        return;
    }
    for (index, text) in chain(error).lines().enumerate() {
        note(&format!("{} {text}", if index == 0 { "rds:" } else { "    " }));
    }
    if let Some(hint) = error.hint() {
        note(&format!("     {hint}"));
    }
}

/// Renders rows under a heading, columns as wide as their widest cell.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let render = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![render(&mut heading.iter().copied())];
    lines.extend(rows.iter().map(|row| render(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// A number of bytes as a person reads it.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", count / 1_048_576),
        _ => format!("{}.{} GiB", count >> 30, (count % (1 << 30)) * 10 / (1 << 30)),
    }
}

/// Text of a guest made harmless for a terminal: control characters, and those that change how their neighbours are
/// shown, are spelled out.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_harmless(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".into(), "bbbb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&["X", "Y"], &rows), "X    Y\na    bbbb\nccc  d");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(["0 B", "1 KiB", "3 MiB", "1.5 GiB"], [0, 1100, 3 << 20, 3 << 29].map(bytes)[..]);
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J"), "a\\u{1b}[2J");
        let value = serde_json::json!({"a\u{9b}2J": ["\u{202e}x\ny", "é"]});
        let text = json_text(&value);
        assert_eq!(text, "{\n  \"a\\u009b2J\": [\n    \"\\u202ex\\ny\",\n    \"é\"\n  ]\n}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
