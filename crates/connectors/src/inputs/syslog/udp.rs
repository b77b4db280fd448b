//! Syslog over UDP (RFC 5426): one datagram, one message. `datagrams.rs` receives them.

use super::batch;
use super::parse::ParseContext;
use crate::inputs::batch::Batch;
use crate::inputs::datagrams::{Datagrams, PeerText};
use crate::inputs::deliver::{Delivery, Shared};
use jiff::tz::TimeZone;
use model::{InputKind, RejectReason};
use std::net::UdpSocket;
use std::sync::Arc;

/// Batches offered to the sink at a time.
const IN_FLIGHT: usize = 8;
const INPUT: InputKind = InputKind::SyslogUdp;

/// Receives until the stop; returns when everything received is accepted or counted.
pub(super) async fn serve(
    socket: UdpSocket,
    max_message_bytes: usize,
    buffer_bytes: usize,
    timezone: TimeZone,
    shared: Arc<Shared>,
) {
    let mut delivery = Delivery::new(Arc::clone(&shared), INPUT, None, IN_FLIGHT);
    let mut incoming = Datagrams::receive(socket, INPUT, buffer_bytes, Arc::clone(&shared), delivery.refused());
    let mut peer_text = PeerText::default();
    while let Some(arena) = incoming.next().await {
        let received_at = shared.clock.now();
        let mut batch = Batch::default();
        for (datagram, peer) in arena.datagrams() {
            let ctx = ParseContext { received_at, peer_ip: Some(peer_text.of(peer.ip())), timezone: &timezone };
            let truncated = datagram.len() > max_message_bytes;
            let message = &datagram[..datagram.len().min(max_message_bytes)];
            if truncated {
                let detail = "larger than the configured bound; its beginning is kept";
                shared.reject(INPUT, RejectReason::TooLarge, detail, Some(peer), message);
            }
            if !batch::push(&mut batch, message, truncated, &ctx) {
                shared.reject(INPUT, RejectReason::Malformed, "an empty datagram", Some(peer), datagram);
            }
            if batch.is_full() {
                delivery.submit(std::mem::take(&mut batch)).await;
            }
        }
        incoming.give_back(arena);
        delivery.submit(batch).await;
    }
    delivery.finish().await;
    incoming.finish().await;
}
