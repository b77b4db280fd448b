//! Edges with other people's systems: `inputs` take events in, `channels` take alerts out.
//!
//! Nothing here keeps anything, retries anything or decides anything: inputs hand events to a
//! [`inputs::Sink`], channels try once and say how it went. The pipeline does the rest, once for
//! all of them.

pub mod channels;
pub mod inputs;
