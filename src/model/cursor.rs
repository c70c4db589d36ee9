//! Cursors of the stream of changes, as clients see them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const STREAM: u8 = b's';

/// The cursor for a position in the stream.
pub fn stream_cursor(position: i64) -> String {
    URL_SAFE_NO_PAD.encode([&[STREAM][..], &position.to_be_bytes()].concat())
}

/// The position in the stream that a cursor stands for, if it is one.
pub fn stream_position(cursor: &str) -> Option<i64> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let position = bytes.strip_prefix(&[STREAM])?.try_into().ok().map(i64::from_be_bytes)?;
    (position >= 0).then_some(position)
}
