//! A text with its escapes undone, that still knows where each byte came from.

use std::ops::Range;

/// Bytes, and for each where its original begins; one entry more tells where the last one ends.
pub(super) struct View {
    bytes: Vec<u8>,
    /// `None`: every byte is its own original.
    starts: Option<Vec<usize>>,
}

impl View {
    pub(super) fn of(text: &[u8]) -> Self {
        Self { bytes: text.to_vec(), starts: None }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where a range of [`View::bytes`] was in the first text.
    pub(super) fn original(&self, range: Range<usize>) -> Range<usize> {
        match &self.starts {
            None => range,
            Some(starts) => starts[range.start]..starts[range.end],
        }
    }

    /// The text with one level of escapes undone; `None` if there are none.
    pub(super) fn decoded(&self) -> Option<Self> {
        let first = self.bytes.iter().position(|byte| matches!(byte, b'%' | b'\\'))?;
        let mut bytes = self.bytes[..first].to_vec();
        let mut starts: Vec<usize> = (0..first).map(|at| self.start(at)).collect();
        let (mut at, mut changed) = (first, false);
        while at < self.bytes.len() {
            let before = bytes.len();
            let taken = match undo(&self.bytes[at..], &mut bytes) {
                Some(taken) => {
                    changed = true;
                    taken
                }
                None => {
                    bytes.push(self.bytes[at]);
                    1
                }
            };
            starts.extend(std::iter::repeat_n(self.start(at), bytes.len() - before));
            at += taken;
        }
        starts.push(self.start(at));
        changed.then_some(Self { bytes, starts: Some(starts) })
    }

    fn start(&self, at: usize) -> usize {
        self.starts.as_ref().map_or(at, |starts| starts[at])
    }
}

/// Undoes the escape at the beginning of `text`: appends what it stands for, and gives its length.
fn undo(text: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    match (text.first()?, text.get(1)?) {
        (b'%', _) => {
            out.push(u8::try_from(digits(text, 1, 2)?).ok()?);
            Some(3)
        }
        (b'\\', b'x') => {
            out.push(u8::try_from(digits(text, 2, 2)?).ok()?);
            Some(4)
        }
        (b'\\', b'u') => {
            let (unit, mut taken) = (digits(text, 2, 4)?, 6);
            let mut code = unit;
            if (0xd800..0xdc00).contains(&unit) {
                let low = text.get(6..8).filter(|next| *next == b"\\u").and_then(|_| digits(text, 8, 4))?;
                code = 0x10000 + ((unit - 0xd800) << 10) + low.checked_sub(0xdc00)?;
                taken = 12;
            }
            out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            Some(taken)
        }
        (b'\\', short) => {
            out.push(match short {
                b'"' | b'\\' | b'/' | b'\'' | b'`' => *short,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                _ => return None,
            });
            Some(2)
        }
        _ => None,
    }
}

fn digits(text: &[u8], from: usize, count: usize) -> Option<u32> {
    let digits = text.get(from..from + count)?;
    digits.iter().try_fold(0, |number, digit| Some(number * 16 + char::from(*digit).to_digit(16)?))
}
