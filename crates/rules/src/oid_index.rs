//! OIDs that rules name, and for an event's OID all of them that are it or lie above it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A lookup visits every known prefix, by whole components, in one walk over the OID.
#[derive(Debug, Default)]
pub(crate) struct OidIndex {
    by_hash: HashMap<u64, Vec<(String, usize)>, BuildHasherDefault<Hashed>>,
}

impl OidIndex {
    pub(crate) fn insert(&mut self, oid: &str, key: usize) {
        let hash = oid.bytes().fold(HASH_SEED, hash_step);
        self.by_hash.entry(hash).or_default().push((oid.to_owned(), key));
    }

    pub(crate) fn visit(&self, oid: &str, mut visit: impl FnMut(usize)) {
        if self.by_hash.is_empty() {
            return;
        }
        let mut hash = HASH_SEED;
        for (at, byte) in oid.bytes().chain([b'.']).enumerate() {
            if byte == b'.'
                && let Some(slot) = self.by_hash.get(&hash)
            {
                let prefix = &oid[..at];
                slot.iter().filter(|(known, _)| known == prefix).for_each(|(_, key)| visit(*key));
            }
            hash = hash_step(hash, byte);
        }
    }
}

const HASH_SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a; a collision costs a comparison and nothing else, and only rule authors could make one.
fn hash_step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// Takes a number that is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().copied().fold(self.0, hash_step);
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash ^ (hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
