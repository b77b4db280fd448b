//! A stretch of acceptance in slices.

use model::{EventId, OrgId, Timestamp};
use storage::StorageResult;
use storage::events::{EventRange, EventStore, StoredEvent};

/// A slice ends, too, when its events are this long together.
const BYTES: usize = 16 << 20;
/// Events of one page.
const PAGE: usize = 1_000;

/// Events that were accepted one after the other.
#[derive(Debug)]
pub struct Slice {
    pub events: Vec<StoredEvent>,
    /// Everything accepted before this time is in this slice or one before.
    pub through: Timestamp,
}

/// Reads slices, oldest first.
pub struct Slices {
    org: OrgId,
    from: Timestamp,
    to: Timestamp,
    after: Option<EventId>,
    /// Read, and not in a slice yet.
    ahead: Vec<StoredEvent>,
    done: bool,
    events_max: usize,
}

impl Slices {
    /// Of what was accepted from `from` to before `to`, about so many events each.
    pub fn new(org: OrgId, from: Timestamp, to: Timestamp, events_max: usize) -> Self {
        Self { org, from, to, after: None, ahead: Vec::new(), done: from >= to, events_max }
    }

    /// The next one; `None` after the last. It ends between two milliseconds, so that a time says what
    /// was in it; the last one ends with the stretch.
    pub async fn next(&mut self, store: &dyn EventStore) -> StorageResult<Option<Slice>> {
        if self.done {
            return Ok(None);
        }
        let mut bytes: usize = self.ahead.iter().map(|event| event.raw.len()).sum();
        loop {
            let range =
                EventRange { from: self.from, to: self.to, after: self.after, limit: PAGE.min(self.events_max) };
            let page = store.range(&self.org, range).await?;
            let Some(last) = page.last() else {
                self.done = true;
                return Ok(Some(Slice { events: std::mem::take(&mut self.ahead), through: self.to }));
            };
            self.after = Some(last.id);
            let cut = last.id.accepted();
            bytes += page.iter().map(|event| event.raw.len()).sum::<usize>();
            self.ahead.extend(page);
            if self.ahead.len() < self.events_max && bytes < BYTES {
                continue;
            }
            // Of the last millisecond more may come.
            let at = self.ahead.partition_point(|event| event.id.accepted() < cut);
            if at > 0 {
                let rest = self.ahead.split_off(at);
                return Ok(Some(Slice { events: std::mem::replace(&mut self.ahead, rest), through: cut }));
            }
        }
    }
}
