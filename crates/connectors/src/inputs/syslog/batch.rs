//! Syslog messages on their way into a batch.

use super::parse::{ParseContext, encode, parse, trim_end};
use crate::inputs::batch::Batch;

/// Parses one message and appends its event. `false` for a message of trailers only.
pub(super) fn push(batch: &mut Batch, message: &[u8], truncated: bool, ctx: &ParseContext<'_>) -> bool {
    if trim_end(message).is_empty() {
        return false;
    }
    batch.append(|out| encode(&parse(message, ctx), truncated, out));
    true
}
