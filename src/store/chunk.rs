//! The stored form of log lines: columns, then text, compressed together.
//!
//! A chunk is a zstd frame of: the number of lines; a byte a line for stream and `continued`; the timestamps, each as
//! the difference to the one before; the lengths; the texts. All numbers are variable-length (LEB128), so that a line costs
//! three bytes beside its text, before the compression.

use crate::error::Error;
use crate::model::{LogLines, LogStream, Timestamp};

/// zstd's fastest ordinary level: logs repeat themselves, and the job waits for it.
const LEVEL: i32 = 1;
const CONTINUED: u8 = 0x80;

/// The stored form of `lines`.
pub fn encode(lines: &LogLines) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(lines.text().len() + 4 * lines.len() + 16);
    put(&mut bytes, lines.len() as u64);
    for line in lines.iter() {
        bytes.push(stream_code(line.stream) | if line.continued { CONTINUED } else { 0 });
    }
    let mut before = 0;
    for line in lines.iter() {
        let micros = line.timestamp.micros();
        put(&mut bytes, zigzag(micros.wrapping_sub(before)));
        before = micros;
    }
    for line in lines.iter() {
        put(&mut bytes, line.text.len() as u64);
    }
    bytes.extend_from_slice(lines.text().as_bytes());
    zstd::bulk::compress(&bytes, LEVEL).map_err(Error::internal)
}

/// The lines of a chunk whose first has this number.
pub fn decode_all(first_sequence: i64, chunk: &[u8]) -> Result<LogLines, Error> {
    decode(first_sequence, first_sequence, chunk)
}

/// The lines of a chunk whose first has this number, from number `from` on.
pub(super) fn decode(first_sequence: i64, from: i64, chunk: &[u8]) -> Result<LogLines, Error> {
    let bytes = zstd::stream::decode_all(chunk).map_err(Error::internal)?;
    parse(first_sequence, from, &bytes).ok_or_else(|| Error::internal("a log chunk is damaged"))
}

fn parse(first_sequence: i64, from: i64, mut bytes: &[u8]) -> Option<LogLines> {
    let count = usize::try_from(take(&mut bytes)?).ok()?;
    let flags = bytes.split_off(..count)?;
    let mut timestamps = Vec::with_capacity(count);
    let mut micros = 0_i64;
    for _ in 0..count {
        micros = micros.wrapping_add(unzigzag(take(&mut bytes)?));
        timestamps.push(Timestamp::from_micros(micros)?);
    }
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        lengths.push(usize::try_from(take(&mut bytes)?).ok()?);
    }
    let mut text = std::str::from_utf8(bytes).ok()?;
    let skipped = usize::try_from(from.saturating_sub(first_sequence)).unwrap_or(0);
    let mut lines = LogLines::starting_at(first_sequence.max(from));
    for (index, ((flag, timestamp), length)) in flags.iter().zip(timestamps).zip(lengths).enumerate() {
        let (line, rest) = text.split_at_checked(length)?;
        text = rest;
        if index >= skipped {
            lines.push(timestamp, stream_of(flag & !CONTINUED)?, flag & CONTINUED != 0, line);
        }
    }
    Some(lines)
}

fn stream_code(stream: LogStream) -> u8 {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
        LogStream::System => 2,
    }
}

fn stream_of(code: u8) -> Option<LogStream> {
    [LogStream::Stdout, LogStream::Stderr, LogStream::System].get(usize::from(code)).copied()
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_line() -> impl Strategy<Value = (i64, u8, bool, String)> {
        (0..4_000_000_000_000_000_i64, 0..3_u8, any::<bool>(), any::<String>())
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_encoded(
            lines in proptest::collection::vec(any_line(), 0..50), first in 0..1_000_i64, skip in 0..60_i64,
        ) {
            let mut encoded = LogLines::starting_at(first);
            let mut expected = LogLines::starting_at(first + skip);
            for (index, (micros, stream, continued, text)) in lines.iter().enumerate() {
                let (Some(timestamp), Some(stream)) = (Timestamp::from_micros(*micros), stream_of(*stream)) else {
                    panic!("the strategy makes only valid lines");
                };
                encoded.push(timestamp, stream, *continued, text);
                if index as i64 >= skip {
                    expected.push(timestamp, stream, *continued, text);
                }
            }
            prop_assert_eq!(decode(first, first + skip, &encode(&encoded)?)?, expected);
        }

        #[test]
        fn damaged_bytes_are_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(0, 0, &bytes);
        }
    }
}
