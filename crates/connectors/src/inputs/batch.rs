//! Events on their way to the sink: encoded one behind the other in one buffer.

use super::NewEvent;
use bytes::Bytes;
use model::{InputKind, OrgId};

/// A batch is handed over at the latest with this many bytes…
pub(super) const FULL_BYTES: usize = 1 << 20;
/// …or this many events.
pub(super) const FULL_EVENTS: usize = 4_096;

/// A growing batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BYTES || self.ends.len() >= FULL_EVENTS
    }

    /// Appends the one object that `write` writes.
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        // A batch is handed over once it passes 1 MiB, and one message adds a few MiB at most.
        self.ends.push(u32::try_from(self.bytes.len()).expect("a batch stays far below 4 GiB"));
    }

    pub(super) fn seal(self) -> Sealed {
        Sealed { bytes: Bytes::from(self.bytes), ends: self.ends }
    }
}

/// A batch that is being delivered; makes its events anew for every attempt.
#[derive(Debug)]
pub(super) struct Sealed {
    bytes: Bytes,
    ends: Vec<u32>,
}

impl Sealed {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Memory that the batch holds while it is in flight.
    pub(super) fn weight(&self) -> usize {
        self.bytes.len() + self.ends.len() * (size_of::<u32>() + size_of::<NewEvent>())
    }

    /// The objects from number `from` on, at most `count`.
    pub(super) fn part(&self, from: usize, count: usize) -> impl Iterator<Item = Bytes> + '_ {
        self.objects().skip(from).take(count)
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let end = *end as usize;
            let object = self.bytes.slice(start..end);
            start = end;
            object
        })
    }

    pub(super) fn events(&self, org: &OrgId, input: InputKind) -> Vec<NewEvent> {
        self.events_of_part(0, self.len(), org, input)
    }

    /// The events from number `from` on, at most `count`.
    pub(super) fn events_of_part(&self, from: usize, count: usize, org: &OrgId, input: InputKind) -> Vec<NewEvent> {
        let event = |object| NewEvent { id: None, org: org.clone(), input, correlation_id: None, object };
        self.part(from, count).map(event).collect()
    }
}
