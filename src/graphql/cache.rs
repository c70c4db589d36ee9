//! Answers to queries, as long as nothing that they show has changed.
//!
//! An answer is kept with the store's revision at which its reading began, and given again while the revision is the same and nothing is
//! being committed. So no read is answered from before a write that was acknowledged, or that anybody can have seen.
//! What fields answer may depend on the operation, the caller and the store. An answer with one that changes by itself is not kept.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::operation::Json;
use super::plan::Key;
use crate::store::Revision;

/// Answers that are larger than this share of the cache are not kept.
const LARGEST_SHARE: usize = 16;
const TYPICAL_ANSWER: usize = 8 * 1024;

/// The answers. Clones share them.
#[derive(Clone)]
pub(super) struct Answers {
    answers: Arc<Cache<Key, Kept, Size>>,
    most_bytes: usize,
}

#[derive(Clone)]
struct Kept {
    answer: Json,
    read_at: Revision,
    reads_logs: bool,
}

#[derive(Clone)]
struct Size;

impl Weighter<Key, Kept> for Size {
    fn weight(&self, key: &Key, kept: &Kept) -> u64 {
        (key.len() + kept.answer.as_str().len() + 128) as u64
    }
}

impl Answers {
    /// Room for so many bytes of answers: none with 0.
    pub(super) fn new(most_bytes: usize) -> Self {
        let answers = Cache::with_weighter(most_bytes / TYPICAL_ANSWER, most_bytes as u64, Size);
        Self { answers: Arc::new(answers), most_bytes }
    }

    /// The answer, if it is what carrying out the query at this revision would come to.
    pub(super) fn get(&self, key: &Key, now: Revision) -> Option<Json> {
        let kept = self.answers.get(key)?;
        let stands = now.is_settled(kept.reads_logs) && kept.read_at.is_same(now, kept.reads_logs);
        stands.then_some(kept.answer)
    }

    /// Keeps an answer whose reading began at a revision.
    pub(super) fn keep(&self, key: Key, answer: Json, read_at: Revision, reads_logs: bool) {
        if read_at.is_settled(reads_logs) && answer.as_str().len() <= self.most_bytes / LARGEST_SHARE {
            self.answers.insert(key, Kept { answer, read_at, reads_logs });
        }
    }
}
