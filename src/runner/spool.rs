//! Lines that wait on disk while the database is away: a bounded queue in a file.
//!
//! What is taken out stays in the file until all of it is stored, so little is lost if the server ends meanwhile: the next one on the
//! directory finds it. Each batch stands there with the number of its first line and its length, both big-endian.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::confined::remove_tree;
use crate::model::LogLines;
use crate::store::{decode_lines, encode_lines};

/// The bytes before each batch.
const HEADER: usize = 12;
/// Jobs of the same user can write there: a link that one has planted is not followed, and a FIFO not waited for.
const NO_LINK: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;

/// A queue of lines.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    /// Where lines go that nobody will store.
    unstored: PathBuf,
    most_bytes: u64,
    file: Option<File>,
    /// What is in it: where, how many bytes, and the number of the first line.
    waiting: VecDeque<(u64, usize, i64)>,
    end: u64,
}

impl Spool {
    /// An empty queue that will be in a file, and take no more when that has so many bytes.
    pub(super) fn new(path: PathBuf, unstored: PathBuf, most_bytes: u64) -> Self {
        Self { path, unstored, most_bytes, file: None, waiting: VecDeque::new(), end: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.end < self.most_bytes
    }

    /// Adds lines at the end. Before the first come those that are taken already, and not stored either.
    pub(super) fn push(&mut self, taken: Option<&LogLines>, lines: &LogLines) -> io::Result<()> {
        if let Some(taken) = taken.filter(|_| self.end == 0) {
            self.write(taken)?;
        }
        let (at, length) = self.write(lines)?;
        self.waiting.push_back((at, length, lines.first_sequence()));
        Ok(())
    }

    fn write(&mut self, lines: &LogLines) -> io::Result<(u64, usize)> {
        let bytes = encode_lines(lines).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let frame = [&lines.first_sequence().to_be_bytes()[..], &length.to_be_bytes(), &bytes].concat();
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                if self.path.symlink_metadata().is_ok() {
                    remove_tree(&self.path)?; // of an earlier try, or planted by a job
                }
                none.insert(File::options().create_new(true).read(true).write(true).open(&self.path)?)
            }
        };
        file.write_all_at(&frame, self.end)?;
        let at = self.end + HEADER as u64;
        self.end += frame.len() as u64;
        Ok((at, bytes.len()))
    }

    /// Takes the first lines out. Whoever does so has stored what he took before.
    pub(super) fn pop(&mut self) -> io::Result<Option<LogLines>> {
        let (Some(file), Some((at, length, first))) = (&self.file, self.waiting.pop_front()) else { return Ok(None) };
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at)?;
        decode_lines(first, &bytes).map(Some).map_err(io::Error::other)
    }

    /// A queue with what an earlier server left in its file, if it left one.
    pub(super) fn left(path: PathBuf, unstored: PathBuf) -> io::Result<Option<Self>> {
        let file = match File::options().read(true).write(true).custom_flags(NO_LINK).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_file(&path) => return Err(error),
            _ => return planted(&path),
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return planted(&path);
        }
        let size = found.len();
        let mut spool = Self { file: Some(file), ..Self::new(path, unstored, 0) };
        // The last batch may not have been written to its end.
        while let Some((at, length, first)) = spool.header(size)? {
            spool.waiting.push_back((at, length, first));
            spool.end = at + length as u64;
        }
        Ok(Some(spool))
    }

    /// What the header at the end says of the batch that follows, if all of that is there.
    fn header(&self, size: u64) -> io::Result<Option<(u64, usize, i64)>> {
        let (Some(file), at) = (&self.file, self.end + HEADER as u64) else { return Ok(None) };
        if at > size {
            return Ok(None);
        }
        let (mut first, mut length) = ([0; 8], [0; 4]);
        file.read_exact_at(&mut first, self.end)?;
        file.read_exact_at(&mut length, self.end + 8)?;
        let (first, length) = (i64::from_be_bytes(first), u32::from_be_bytes(length));
        Ok((at + u64::from(length) <= size).then_some((at, length as usize, first)))
    }

    /// Keeps lines, and between them what waits, in a file for people: the attempt is over for everybody else, and none of them can be stored.
    pub(super) fn keep(&mut self, before: Option<&LogLines>, after: &LogLines) -> io::Result<()> {
        if before.is_none_or(LogLines::is_empty) && self.is_empty() && after.is_empty() {
            self.clear();
            return Ok(());
        }
        let mut file =
            io::BufWriter::new(File::options().create(true).append(true).custom_flags(NO_LINK).open(&self.unstored)?);
        before.map_or(Ok(()), |lines| write(lines, &mut file))?;
        while let Some(lines) = self.pop()? {
            write(&lines, &mut file)?;
        }
        write(after, &mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        self.clear();
        Ok(())
    }

    /// Removes the file: all that was in it is stored.
    pub(super) fn clear(&mut self) {
        if self.file.take().is_some() {
            (self.end, self.waiting) = (0, VecDeque::new());
            let _ = fs::remove_file(&self.path); // the next server on the directory does so else
        }
    }
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file())
}

/// Removes what a job has planted in the place of a queue: nothing waits there.
fn planted(path: &Path) -> io::Result<Option<Spool>> {
    tracing::warn!(path = %path.display(), "removing what is no file of lines that wait");
    remove_tree(path).map(|()| None)
}

/// Writes lines, as they were printed, to a file for people.
fn write(lines: &LogLines, file: &mut impl Write) -> io::Result<()> {
    lines.iter().try_for_each(|line| {
        file.write_all(line.text.as_bytes())?;
        if line.continued { Ok(()) } else { file.write_all(b"\n") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogStream, Timestamp};

    fn lines(first: i64, texts: &[&str]) -> LogLines {
        let mut lines = LogLines::starting_at(first);
        texts.iter().for_each(|text| lines.push(Timestamp::now(), LogStream::Stdout, false, text));
        lines
    }

    #[test]
    fn lines_come_out_as_they_went_in_and_the_file_goes() {
        let directory = tempfile::tempdir().unwrap();
        let (path, unstored) = (directory.path().join("spool"), directory.path().join("unstored"));
        let mut spool = Spool::new(path.clone(), unstored.clone(), 1 << 20);
        let batches = [lines(3, &["a", "b"]), lines(5, &["", "é"]), lines(7, &["last"])];
        spool.push(None, &batches[0]).unwrap();
        spool.push(Some(&batches[0]), &batches[1]).unwrap();
        assert_eq!(spool.pop().unwrap().as_ref(), Some(&batches[0]));
        spool.push(None, &batches[2]).unwrap();
        assert_eq!(spool.pop().unwrap().as_ref(), Some(&batches[1]));
        assert_eq!(spool.pop().unwrap().as_ref(), Some(&batches[2]));
        assert!(spool.is_empty() && spool.pop().unwrap().is_none() && path.exists());
        spool.clear();
        assert!(!path.exists());
        spool.push(None, &batches[1]).unwrap();
        spool.keep(Some(&batches[0]), &batches[2]).unwrap();
        assert_eq!(fs::read_to_string(unstored).unwrap(), "a\nb\n\né\nlast\n");
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_server_has_left_is_found_without_what_is_not_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (path, unstored) = (directory.path().join("spool"), directory.path().join("unstored"));
        assert!(Spool::left(path.clone(), unstored.clone()).unwrap().is_none());
        let mut spool = Spool::new(path.clone(), unstored.clone(), 1 << 20);
        let batches = [lines(0, &["in flight"]), lines(1, &["a"]), lines(2, &["b"])];
        spool.push(Some(&batches[0]), &batches[1]).unwrap();
        spool.push(Some(&batches[0]), &batches[2]).unwrap();
        drop(spool);
        let file = File::options().append(true).open(&path).unwrap();
        file.write_all_at(&[0; 5], file.metadata().unwrap().len()).unwrap_or_default();
        let mut left = Spool::left(path, unstored).unwrap().unwrap();
        for batch in &batches {
            assert_eq!(left.pop().unwrap().as_ref(), Some(batch));
        }
        assert!(left.pop().unwrap().is_none());
    }

    #[test]
    fn it_has_room_only_up_to_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path().join("spool"), directory.path().join("unstored"), 10);
        assert!(spool.has_room());
        spool.push(None, &lines(0, &["more than ten bytes, however they are encoded: 0f4a91c2"])).unwrap();
        assert!(!spool.has_room());
    }
}
