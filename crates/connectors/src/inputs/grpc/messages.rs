//! gRPC on a stream of HTTP/2: messages with a length before each, and a status after the last.

use super::status::{Code, Status};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response, header};
use prost::Message;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wire::{Bounded, DecodeError};

/// Before each message: whether it is compressed, and its length.
const HEAD: usize = 5;
/// Messages up to here are not counted against the budget: a stream's window holds as much anyway.
const SMALL: usize = 64 << 10;

/// Only batches are longer: greetings, reports and answers go to whoever keeps them as they are.
pub(super) const WORDS_BYTES_MAX: usize = 64 << 10;

/// What comes next on a stream.
#[derive(Debug)]
pub(super) enum Next<M> {
    Message(M),
    /// A whole message that is none of this call; the stream goes on behind it. With its beginning.
    Bad(DecodeError, Bytes),
    /// The client has said everything.
    End,
}

/// Why nothing more can come.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client is gone, or took the call back.
    Gone,
    /// It does not speak gRPC, or not within the bounds.
    Wrong(Status),
}

/// The permits for large messages, of all connections.
#[derive(Clone)]
pub(super) struct Budget {
    kib: Arc<Semaphore>,
    kib_max: u32,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let kib_max = u32::try_from(bytes / 1_024).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32).max(1);
        Self { kib: Arc::new(Semaphore::new(kib_max as usize)), kib_max }
    }

    fn ask(&self, bytes: usize) -> Waiting {
        let kib = u32::try_from(bytes / 1_024 + 1).unwrap_or(u32::MAX).min(self.kib_max);
        let kib_of_all = Arc::clone(&self.kib);
        Box::pin(async move { kib_of_all.acquire_many_owned(kib).await.ok() })
    }
}

type Waiting = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// Bounds of messages.
#[derive(Clone)]
pub(super) struct MessageLimits {
    pub bytes_max: usize,
    pub timeout: Duration,
    pub budget: Budget,
}

/// Reads messages. All methods are cancel safe.
pub(super) struct Messages {
    body: RecvStream,
    limits: MessageLimits,
    buffer: BytesMut,
    /// The begun message has to be whole by then.
    due: Option<Instant>,
    waiting: Option<Waiting>,
    permit: Option<OwnedSemaphorePermit>,
    /// Of the message that was given out last.
    pub last_bytes: usize,
}

impl Messages {
    pub(super) fn new(body: RecvStream, limits: MessageLimits) -> Self {
        Self { body, limits, buffer: BytesMut::new(), due: None, waiting: None, permit: None, last_bytes: 0 }
    }

    /// From now on, messages of this length at most.
    pub(super) fn bound(&mut self, bytes_max: usize) {
        self.limits.bytes_max = self.limits.bytes_max.min(bytes_max);
    }

    /// The next message; waits for it.
    pub(super) async fn next<M: Bounded>(&mut self) -> Result<Next<M>, Broken> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next message if it is here already.
    pub(super) async fn next_ready<M: Bounded>(&mut self) -> Option<Result<Next<M>, Broken>> {
        poll_fn(|cx| match self.poll_next(cx) {
            Poll::Ready(next) => Poll::Ready(Some(next)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// Whether a message has been coming for too long, and not because of us.
    pub(super) fn is_overdue(&self) -> bool {
        self.waiting.is_none() && self.due.is_some_and(|due| due <= Instant::now())
    }

    fn poll_next<M: Bounded>(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next<M>, Broken>> {
        loop {
            if let Some(len) = self.head()? {
                if len > SMALL && self.permit.is_none() {
                    let budget = &self.limits.budget;
                    let waiting = self.waiting.get_or_insert_with(|| budget.ask(len));
                    match waiting.as_mut().poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(permit) => self.permit = permit,
                    }
                    self.waiting = None;
                    self.due = Some(Instant::now() + self.limits.timeout);
                }
                if self.buffer.len() >= HEAD + len {
                    self.buffer.advance(HEAD);
                    let bytes = self.buffer.split_to(len).freeze();
                    return Poll::Ready(Ok(self.whole(&bytes)));
                }
            } else if self.buffer.is_empty() {
                // What was given out before is done with.
                self.permit = None;
                self.due = None;
            }
            match self.body.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(chunk))) => {
                    let _ = self.body.flow_control().release_capacity(chunk.len());
                    if let Some(next) = self.take(chunk) {
                        return Poll::Ready(Ok(next));
                    }
                }
                Poll::Ready(None) if self.buffer.is_empty() => return Poll::Ready(Ok(Next::End)),
                // The stream ends amid a message.
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(Err(Broken::Gone)),
            }
        }
    }

    /// Keeps a chunk; a message that is the whole of it is given out without a copy.
    fn take<M: Bounded>(&mut self, chunk: Bytes) -> Option<Next<M>> {
        if self.buffer.is_empty()
            && let Ok(Some(len)) = head(&chunk, self.limits.bytes_max)
            && chunk.len() == HEAD + len
            && len <= SMALL
        {
            return Some(self.whole(&chunk.slice(HEAD..)));
        }
        if self.buffer.is_empty() {
            self.due = Some(Instant::now() + self.limits.timeout);
        }
        self.buffer.extend_from_slice(&chunk);
        None
    }

    fn whole<M: Bounded>(&mut self, bytes: &Bytes) -> Next<M> {
        self.last_bytes = bytes.len();
        if self.buffer.is_empty() {
            // An idle stream holds no memory.
            self.buffer = BytesMut::new();
            self.due = None;
        } else {
            self.due = Some(Instant::now() + self.limits.timeout);
        }
        match wire::decode(bytes) {
            Ok(message) => Next::Message(message),
            Err(error) => Next::Bad(error, bytes.slice(..bytes.len().min(1_024))),
        }
    }

    fn head(&self) -> Result<Option<usize>, Broken> {
        head(&self.buffer, self.limits.bytes_max).map_err(Broken::Wrong)
    }
}

/// The length of the message that begins here.
fn head(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Status> {
    let Some(([compressed, len @ ..], _)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let len = u32::from_be_bytes(*len) as usize;
    match compressed {
        0 if len <= bytes_max => Ok(Some(len)),
        0 => {
            let text = format!("a message of {len} bytes is over the bound of {bytes_max}");
            Err(Status::new(Code::ResourceExhausted, text))
        }
        1 => Err(Status::new(Code::Unimplemented, "compressed messages are not taken")),
        _ => Err(Status::new(Code::InvalidArgument, "not gRPC: a message begins with a flag of 0 or 1")),
    }
}

/// The client is gone, or took the call back.
#[derive(Debug)]
pub(super) struct Gone;

/// Writes messages, and the end.
pub(super) struct Answer {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
}

impl Answer {
    pub(super) fn new(respond: SendResponse<Bytes>) -> Self {
        Self { respond, stream: None }
    }

    /// Says that the call is taken, before anything else is known.
    pub(super) fn start(&mut self) -> Result<&mut SendStream<Bytes>, Gone> {
        if self.stream.is_none() {
            self.stream = Some(self.respond.send_response(head_response(), false).map_err(|_| Gone)?);
        }
        self.stream.as_mut().ok_or(Gone)
    }

    /// Sends one message; waits while the client takes none.
    pub(super) async fn send<M: Message>(&mut self, message: &M) -> Result<(), Gone> {
        let len = message.encoded_len();
        let mut bytes = BytesMut::with_capacity(HEAD + len);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(len).map_err(|_| Gone)?);
        message.encode(&mut bytes).map_err(|_| Gone)?;
        send_all(self.start()?, bytes.freeze(), false).await
    }

    /// Waits until the client is gone, or takes the call back. Cancel safe.
    pub(super) async fn gone(&mut self) {
        if let Some(stream) = &mut self.stream {
            let _ = poll_fn(|cx| stream.poll_reset(cx)).await;
        }
    }

    /// Ends the call. What the client still sends is not wanted.
    pub(super) fn end(mut self, status: &Status) {
        let ended = match &mut self.stream {
            Some(stream) => {
                let mut trailers = HeaderMap::with_capacity(2);
                status.write(&mut trailers);
                stream.send_trailers(trailers)
            }
            None => {
                let mut response = head_response();
                status.write(response.headers_mut());
                self.respond.send_response(response, true).map(drop)
            }
        };
        if ended.is_err() {
            self.respond.send_reset(Reason::CANCEL);
        }
    }
}

fn head_response() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Sends bytes as the client makes room for them.
pub(super) async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: Bytes, is_last: bool) -> Result<(), Gone> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = match stream.capacity() {
            0 => match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Err(Gone),
            },
            room => room,
        };
        let part = bytes.split_to(room.min(bytes.len()));
        stream.send_data(part, is_last && bytes.is_empty()).map_err(|_| Gone)?;
    }
    Ok(())
}
