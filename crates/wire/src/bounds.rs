//! Counting before building. Two bytes of a message can ask for a record of two hundred, so what may repeat is counted
//! on the bytes, without memory, before anything is made of them.

use crate::{
    AgentMessage, AuthRequest, AuthResponse, BATCH_RECORDS_MAX, EnrollRequest, EnrollResponse, LABELS_MAX, LogEvent,
    MESSAGE_BYTES_MAX, MitigateRequest, MitigateResponse, RenewRequest, ServerMessage,
};
use prost::Message;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {0} bytes is over the bound of {MESSAGE_BYTES_MAX}")]
    TooLarge(usize),
    /// A field comes more often than it may.
    #[error("field {field} comes more than {max} times")]
    TooMany {
        /// Its number.
        field: u32,
        /// The bound.
        max: usize,
    },
    /// Not protobuf, or not of this type.
    #[error("not a message of this type: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// Not protobuf.
    #[error("not a protobuf message")]
    Broken,
}

/// Which fields of a message hold memory by repeating, or are messages that have such fields.
#[derive(Debug)]
pub struct Shape(&'static [(u32, usize, &'static Shape)]);

const LEAF: Shape = Shape(&[]);
const LOG: Shape = Shape(&[(6, LABELS_MAX, &LEAF)]);
const METRIC: Shape = Shape(&[(8, LABELS_MAX, &LEAF)]);
const RECORD: Shape = Shape(&[(1, 1, &LOG), (2, 1, &METRIC)]);
const BATCH: Shape = Shape(&[(4, BATCH_RECORDS_MAX, &RECORD)]);
const HELLO: Shape = Shape(&[(5, LABELS_MAX, &LEAF)]);
const STATUS: Shape = Shape(&[(4, LABELS_MAX, &LEAF), (5, LABELS_MAX, &LEAF)]);
const AGENT: Shape = Shape(&[(1, 1, &HELLO), (2, 1, &BATCH), (3, 1, &STATUS), (4, 1, &LEAF)]);
const AUTH: Shape = Shape(&[(8, LABELS_MAX, &LEAF)]);
const ENROLL: Shape = Shape(&[(10, LABELS_MAX, &LEAF)]);
const ENROLLED: Shape = Shape(&[(2, 16, &LEAF), (3, 16, &LEAF)]);

/// Messages that can be decoded with bounds.
pub trait Bounded: Message + Default {
    /// What is counted.
    const SHAPE: Shape;
}

macro_rules! bounded {
    ($($message:ty => $shape:expr),* $(,)?) => { $(impl Bounded for $message { const SHAPE: Shape = $shape; })* };
}

bounded! {
    LogEvent => LOG,
    AgentMessage => AGENT,
    ServerMessage => LEAF,
    AuthRequest => AUTH,
    AuthResponse => LEAF,
    EnrollRequest => ENROLL,
    EnrollResponse => ENROLLED,
    RenewRequest => LEAF,
    MitigateRequest => LEAF,
    MitigateResponse => LEAF,
}

/// The message in these bytes, if it keeps to the bounds.
pub fn decode<M: Bounded>(bytes: &[u8]) -> Result<M, DecodeError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    check(bytes, &M::SHAPE)?;
    Ok(M::decode(bytes)?)
}

fn check(mut bytes: &[u8], shape: &Shape) -> Result<(), DecodeError> {
    let mut counts = [0usize; 4];
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = u32::try_from(key >> 3).map_err(|_| DecodeError::Broken)?;
        let value = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => take(&mut bytes, 8)?,
            5 => take(&mut bytes, 4)?,
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).map_err(|_| DecodeError::Broken)?;
                take(&mut bytes, len)?
            }
            // Groups: no message of ours has any, and of strangers' fields none are needed.
            _ => return Err(DecodeError::Broken),
        };
        let known = shape.0.iter().position(|(number, _, _)| *number == field);
        if let Some((at, (_, max, inner))) = known.and_then(|at| Some((at, shape.0.get(at)?))) {
            if let Some(count) = counts.get_mut(at) {
                *count += 1;
                if *count > *max {
                    return Err(DecodeError::TooMany { field, max: *max });
                }
            }
            if key & 7 == 2 && !inner.0.is_empty() {
                check(value, inner)?;
            }
        }
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (value, rest) = bytes.split_at_checked(len).ok_or(DecodeError::Broken)?;
    *bytes = rest;
    Ok(value)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            *bytes = bytes.get(i + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(DecodeError::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Record, agent_message, record};
    use proptest::prelude::*;

    fn batch(records: usize, labels: usize) -> Vec<u8> {
        let labels = (0..labels).map(|i| (i.to_string(), String::new())).collect();
        let log = LogEvent { labels, ..LogEvent::default() };
        let record = Record { body: Some(record::Body::Log(log)) };
        let batch = Batch { records: vec![record; records], ..Batch::default() };
        AgentMessage { body: Some(agent_message::Body::Batch(batch)) }.encode_to_vec()
    }

    #[test]
    fn what_repeats_is_counted_before_it_is_built() {
        let too_many = |field, max| Some(DecodeError::TooMany { field, max });
        assert!(decode::<AgentMessage>(&batch(BATCH_RECORDS_MAX, 1)).is_ok());
        assert_eq!(decode::<AgentMessage>(&batch(BATCH_RECORDS_MAX + 1, 0)).err(), too_many(4, BATCH_RECORDS_MAX));
        assert!(decode::<AgentMessage>(&batch(2, LABELS_MAX)).is_ok());
        assert_eq!(decode::<AgentMessage>(&batch(2, LABELS_MAX + 1)).err(), too_many(6, LABELS_MAX));
        // A message field that comes twice is merged: its records would add up.
        let twice = [batch(3_000, 0), batch(3_000, 0)].concat();
        assert_eq!(decode::<AgentMessage>(&twice).err(), too_many(2, 1));
        assert_eq!(decode::<AuthRequest>(&[0x42, 0].repeat(LABELS_MAX + 1)).err(), too_many(8, LABELS_MAX));
        assert_eq!(
            decode::<LogEvent>(&vec![0; MESSAGE_BYTES_MAX + 1]),
            Err(DecodeError::TooLarge(MESSAGE_BYTES_MAX + 1))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, cut in 0usize..400, flip in 0usize..400, to: u8) {
            let _ = decode::<AgentMessage>(&bytes);
            let mut sound = batch(4, 3);
            if let Some(byte) = sound.get_mut(flip) {
                *byte = to;
            }
            sound.truncate(cut);
            let _ = decode::<AgentMessage>(&sound);
            let _ = decode::<LogEvent>(&sound);
        }
    }
}
