//! Lines of files of any size, in bounded memory.
use std::io::{self, BufRead, Read as _};

/// Longest line, in bytes.
pub(super) const MAX_LINE_BYTES: usize = 1 << 16;

/// Gives each line with its number, from 1, and without its line feed. An error in words for a line that is too long or not UTF-8.
///
/// # Errors
///
/// The reader's.
pub(super) fn for_each_line(
    mut reader: impl BufRead,
    mut each: impl FnMut(u64, Result<&str, String>),
) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let most = MAX_LINE_BYTES as u64 + 1;
        let read = reader.by_ref().take(most).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        if line.pop_if(|last| *last == b'\n').is_none() && read > MAX_LINE_BYTES {
            skip_line(&mut reader)?;
            each(
                number,
                Err(format!("it is longer than {MAX_LINE_BYTES} bytes")),
            );
            continue;
        }
        each(
            number,
            std::str::from_utf8(&line)
                .map(|text| text.trim_end_matches('\r'))
                .map_err(|_| "it is not UTF-8".to_owned()),
        );
    }
    Ok(())
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let read = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(read);
        if end.is_some() || read == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        for_each_line(io::BufReader::with_capacity(7, text), |number, line| {
            lines.push((number, line.map_or_else(|error| error, str::to_owned)));
        })
        .unwrap();
        lines
    }

    #[test]
    fn every_line_has_its_number() {
        let longest = "x".repeat(MAX_LINE_BYTES);
        let text = format!("a\n\nb\r\n{longest}\n{longest}yz\nc");
        let expected: Vec<(u64, String)> = vec![
            (1, "a".into()),
            (2, String::new()),
            (3, "b".into()),
            (4, longest),
            (5, "it is longer than 65536 bytes".into()),
            (6, "c".into()),
        ];
        assert_eq!(lines(text.as_bytes()), expected);
        assert_eq!(
            lines(b"\xff\nb"),
            [(1, "it is not UTF-8".to_owned()), (2, "b".to_owned())]
        );
        assert_eq!(lines(b""), []);
    }
}
