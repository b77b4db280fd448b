//! Which hits a worker of shared correlations is working, kept from before their alerts are written until
//! the new state is stored: whoever takes over works the same hits together again, and so tells nothing
//! that is only almost the same. Kept as a group of its own in each shard.
//!
//! As bytes: version `1`; for each hit its event 16, name 16, the length of its organisation's name 1, and
//! that name.

use model::OrgId;
use std::collections::HashSet;
use storage::correlations::HitKey;

const VERSION: u8 = 1;
/// The lower half of the group's name; no digest of a correlation is known to have it.
const NAME: u64 = 0x6d75_7474_2061_6e6e;

/// A hit, by organisation, event and name.
pub(super) type HitName = (OrgId, u128, u128);

/// The group of a shard under which it is kept.
pub(super) fn group(shard: usize, shards: usize) -> u128 {
    let (shard, shards) = (shard as u128, shards.max(1) as u128);
    // The least upper half that belongs to the shard.
    let upper = (shard << 64).div_ceil(shards);
    (upper << 64) | u128::from(NAME)
}

pub(super) fn name(key: &HitKey) -> HitName {
    (key.org().clone(), key.event().to_u128(), key.name())
}

pub(super) fn encode<'k>(keys: impl Iterator<Item = &'k HitKey>) -> Vec<u8> {
    let mut out = vec![VERSION];
    for key in keys {
        let org = key.org().as_str().as_bytes();
        // Names of organisations are shorter than this holds.
        let Ok(length) = u8::try_from(org.len()) else { continue };
        out.extend(key.event().to_u128().to_be_bytes());
        out.extend(key.name().to_be_bytes());
        out.push(length);
        out.extend(org);
    }
    out
}

/// `None`: damaged.
pub(super) fn decode(bytes: &[u8]) -> Option<HashSet<HitName>> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let mut names = HashSet::new();
    while !rest.is_empty() {
        let (event, after) = rest.split_first_chunk::<16>()?;
        let (name, after) = after.split_first_chunk::<16>()?;
        let (length, after) = after.split_first()?;
        let (org, after) = after.split_at_checked(usize::from(*length))?;
        let org = std::str::from_utf8(org).ok()?.parse().ok()?;
        names.insert((org, u128::from_be_bytes(*event), u128::from_be_bytes(*name)));
        rest = after;
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_a_group_of_its_own() {
        for shards in [1, 2, 3, 7, 8] {
            for shard in 0..shards {
                assert_eq!(rules::correlate::shard(group(shard, shards), shards), shard, "of {shards}");
            }
        }
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        let org = b"acme";
        let mut bytes = vec![VERSION];
        bytes.extend(7_u128.to_be_bytes());
        bytes.extend(9_u128.to_be_bytes());
        bytes.push(org.len() as u8);
        bytes.extend(org);
        let read = decode(&bytes).unwrap();
        assert_eq!(read, HashSet::from([("acme".parse().unwrap(), 7, 9)]));
        assert!((2..bytes.len()).all(|cut| decode(&bytes[..cut]).is_none()));
        assert!(decode(&[]).is_none() && decode(&[2]).is_none());
        assert_eq!(decode(&[VERSION]), Some(HashSet::new()));
    }
}
