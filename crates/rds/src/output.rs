//! Printing for people and for programs.

use std::io::Write;

use serde::Serialize;

use crate::error::CliError;

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("API types have string keys");
    line(&text);
}

/// Prints one line; a reader that has gone (`| head`) is no error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Something that people should know, beside what was asked for.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints an error and what to do about it.
pub(crate) fn failure(error: &CliError) {
    let mut out = std::io::stderr();
    let _ = writeln!(out, "rds: {error}");
    if let Some(hint) = error.hint() {
        let _ = writeln!(out, "     {hint}");
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
    let harmless = |c: char| {
        !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
    };
    text.chars().map(|c| if harmless(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
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
    }
}
