//! How much memory a JSON text may come to, told before it is parsed.

/// Arrays and objects in a JSON text: each may take 660 bytes of memory, however short its text. The text need not be valid.
pub fn containers(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_are_none() {
        assert_eq!(containers(br#"[{"[{\"[":["\\"]},[]]"#), 4);
        assert_eq!(containers(b""), 0);
        assert_eq!(containers(br#""[[["#), 0);
    }
}
