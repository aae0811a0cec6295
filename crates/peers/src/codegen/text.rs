//! Texts of a manifest as harmless parts of JavaScript, TypeScript and Markdown.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::manifest::is_invisible;

/// What a path in a file URL, inside a double-quoted literal, must not contain as it is.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b'[')
    .add(b']');

/// A path as part of a URL that stands in double quotes, in code or in a comment of one line.
pub(super) fn url_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// A string literal of JavaScript, TypeScript and JSON. Invisible characters are written as escapes.
pub(super) fn literal(text: &str) -> String {
    let json = serde_json::to_string(text).expect("strings serialise");
    let mut literal = String::with_capacity(json.len());
    for c in json.chars() {
        if is_invisible(c) {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| literal.push_str(&format!("\\u{unit:04x}")));
        } else {
            literal.push(c);
        }
    }
    literal
}

/// The lines of a text, without what could end a comment or change how it looks.
pub(super) fn comment_lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(|line| visible(line).replace("*/", "*\\/").trim_end().to_owned())
}

/// As [`comment_lines`], on one line.
pub(super) fn comment(text: &str) -> String {
    one_line(text).replace("*/", "*\\/")
}

/// A text as one line of Markdown, without links, images, HTML, code or anything else but its words.
pub(super) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '#' | '|' | '~') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    // What makes a list, a rule or a heading of it, if the text stands at the beginning of a line.
    let digits = escaped.chars().take_while(char::is_ascii_digit).count();
    match escaped.chars().nth(digits) {
        Some('.' | ')') if digits > 0 => escaped.insert(digits, '\\'),
        Some('-' | '+' | '=') if digits == 0 => escaped.insert(0, '\\'),
        _ => {}
    }
    escaped
}

/// A text of several paragraphs as Markdown.
pub(super) fn markdown_paragraphs(text: &str) -> String {
    let unified = text.replace("\r\n", "\n");
    let paragraphs = unified.split("\n\n").map(markdown).filter(|paragraph| !paragraph.is_empty());
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// A code block; its fence is longer than every run of backticks in the code.
pub(super) fn code_block(language: &str, code: &str) -> String {
    let fence = "`".repeat(longest_run(code).max(2) + 1);
    let code = code.lines().map(visible).collect::<Vec<_>>().join("\n");
    format!("{fence}{language}\n{code}\n{fence}\n")
}

/// A code span on one line.
pub(super) fn code_span(code: &str) -> String {
    let code = one_line(code);
    let fence = "`".repeat(longest_run(&code) + 1);
    let pad = if code.starts_with('`') || code.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{code}{pad}{fence}")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

fn one_line(text: &str) -> String {
    visible(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn visible(text: &str) -> String {
    text.chars().map(|c| if is_invisible(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markdown_keeps_the_words_and_nothing_else() {
        assert_eq!(markdown("# a <b> [c](d) `e`\n- f"), r"\# a \<b\> \[c\](d) \`e\` - f");
        assert_eq!(
            [markdown("- a"), markdown("1. a"), markdown("12) a"), markdown("1a")],
            [r"\- a", r"1\. a", r"12\) a", "1a"]
        );
        assert_eq!(markdown_paragraphs("a\nb\n\n\n\n- c"), "a b\n\n\\- c");
        assert_eq!(code_block("ts", "a\n```\nb"), "````ts\na\n```\nb\n````\n");
        assert_eq!(code_span("a`b"), "``a`b``");
        assert_eq!(code_span("`"), "`` ` ``");
    }

    proptest! {
        #[test]
        fn a_literal_is_the_text(text in any::<String>()) {
            let literal = literal(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&literal).unwrap(), text);
            prop_assert!(!literal.chars().any(is_invisible));
        }

        #[test]
        fn nothing_ends_a_comment(text in "[*/ a\u{200b}\r\n]{0,20}") {
            prop_assert!(!comment(&text).contains("*/"));
            prop_assert!(comment_lines(&text).all(|line| !line.contains("*/") && !line.contains(['\n', '\r'])));
        }
    }
}
