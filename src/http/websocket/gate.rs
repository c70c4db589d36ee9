//! What is read from a WebSocket before its client has authenticated.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes a client may send before it has authenticated: frames of every kind, with their heads.
const BEFORE_INIT: usize = 16 * 1024;

/// The longest head of a frame: two bytes, eight for the length, four for the mask.
const LONGEST_HEAD: usize = 14;

/// A stream that yields [`BEFORE_INIT`] bytes and no more, until it is opened. It refuses a frame that would be longer when its head
/// comes, for tungstenite reserves the memory of the whole frame then.
#[derive(Debug)]
pub(super) struct Gate<S> {
    stream: S,
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    left: usize,
    frame: Frame,
}

/// Where in a frame the stream is.
#[derive(Debug)]
enum Frame {
    Head { bytes: [u8; LONGEST_HEAD], have: usize },
    Payload { left: usize },
}

const BEGIN: Frame = Frame::Head { bytes: [0; LONGEST_HEAD], have: 0 };

/// The client has sent more than it may before it authenticates.
#[derive(Debug, thiserror::Error)]
#[error("more than {BEFORE_INIT} bytes before the connection was initialised")]
pub(super) struct TooMuch;

impl<S> Gate<S> {
    pub(super) fn closed(stream: S) -> Self {
        Self { stream, limit: Some(Limit { left: BEFORE_INIT, frame: BEGIN }) }
    }

    /// Lets everything through from now on.
    pub(super) fn open(&mut self) {
        self.limit = None;
    }
}

impl Limit {
    /// Looks at bytes that have come.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), TooMuch> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(TooMuch)?;
        while !bytes.is_empty() {
            match &mut self.frame {
                Frame::Head { bytes: head, have } => {
                    head[*have] = bytes[0];
                    *have += 1;
                    bytes = &bytes[1..];
                    if let Some(length) = payload_length(&head[..*have]) {
                        // The part of the payload that has come already is counted.
                        let left = usize::try_from(length).map_err(|_| TooMuch)?;
                        if left > self.left.saturating_add(bytes.len()) {
                            return Err(TooMuch);
                        }
                        self.frame = if left == 0 { BEGIN } else { Frame::Payload { left } };
                    }
                }
                Frame::Payload { left } => {
                    let here = bytes.len().min(*left);
                    *left -= here;
                    bytes = &bytes[here..];
                    if *left == 0 {
                        self.frame = BEGIN;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The length of a frame's payload, once its head is whole.
fn payload_length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let (extended, mask) = (&head[2..], if second & 0x80 == 0 { 0 } else { 4 });
    let (length, size) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(extended.get(..2)?.try_into().ok()?)), 2),
        127 => (u64::from_be_bytes(extended.get(..8)?.try_into().ok()?), 8),
        length => (u64::from(length), 0),
    };
    (extended.len() >= size + mask).then_some(length)
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Self { stream, limit } = &mut *self;
        ready!(Pin::new(stream).poll_read(context, buffer))?;
        if let Some(limit) = limit
            && let Err(error) = limit.pass(&buffer.filled()[before..])
        {
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame with a payload of this length.
    fn frame(length: usize) -> Vec<u8> {
        let mut bytes = vec![0x81];
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(std::iter::repeat_n(b'x', length));
        bytes
    }

    fn passes(bytes: &[u8], piece: usize) -> bool {
        let mut limit = Limit { left: BEFORE_INIT, frame: BEGIN };
        bytes.chunks(piece).all(|piece| limit.pass(piece).is_ok())
    }

    #[test]
    fn only_so_many_bytes_pass_in_whatever_frames_and_pieces() {
        let many = |frames: usize, length: usize| frame(length).repeat(frames);
        for piece in [1, 2, 3, 7, 2_048, 20_000] {
            for right in
                [frame(0), frame(125), frame(126), frame(16_376), many(2, 8_000), many(120, 125), many(2_700, 0)]
            {
                assert!(passes(&right, piece), "{} in pieces of {piece}", right.len());
            }
            for wrong in [frame(16_377), frame(65_536), many(3, 8_000), many(126, 125), many(2_731, 0)] {
                assert!(!passes(&wrong, piece), "{} in pieces of {piece}", wrong.len());
            }
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_head() {
        for length in [16_385_u64, 2 << 20, u64::MAX] {
            let head = [&[0x81, 0x80 | 127], &length.to_be_bytes()[..], &[1, 2, 3, 4]].concat();
            assert!(!passes(&head, 1), "{length}");
        }
    }
}
