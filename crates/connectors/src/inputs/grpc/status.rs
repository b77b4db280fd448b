//! How a call ends.

use super::Refusal;
use http::{HeaderMap, HeaderValue};
use std::borrow::Cow;
use std::fmt::Write as _;

/// The numbers that gRPC gives to ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// The end of a call, with a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub code: Code,
    pub message: Cow<'static, str>,
}

impl Status {
    pub(super) const OK: Self = Self { code: Code::Ok, message: Cow::Borrowed("") };
    pub(super) const STOPPING: Self =
        Self { code: Code::Unavailable, message: Cow::Borrowed("the control plane is going down; try again") };
    pub(super) const NOBODY: Self =
        Self { code: Code::Unauthenticated, message: Cow::Borrowed("authenticate on this connection first") };

    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// Adds it to the trailers of an answer.
    pub(super) fn write(&self, trailers: &mut HeaderMap) {
        trailers.insert("grpc-status", HeaderValue::from(self.code as u16));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::from_str(&escaped(&self.message))
        {
            trailers.insert("grpc-message", message);
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Credentials(_) => Code::Unauthenticated,
            Refusal::Later { .. } => Code::Unavailable,
            Refusal::Invalid(_) => Code::InvalidArgument,
        };
        Self::new(code, refusal.to_string())
    }
}

/// Percent-encoded where a header cannot hold it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => out.push_str("%25"),
            b' '..=b'~' => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_fits_into_a_header_whatever_it_holds() {
        assert_eq!(escaped("50 % of ü\r\n"), "50 %25 of %C3%BC%0D%0A");
        let mut trailers = HeaderMap::new();
        Status::new(Code::InvalidArgument, "a\nb").write(&mut trailers);
        assert_eq!(
            (&trailers["grpc-status"], &trailers["grpc-message"]),
            (&"3".parse().unwrap(), &"a%0Ab".parse().unwrap())
        );
        Status::OK.write(&mut trailers);
        assert_eq!(trailers["grpc-status"], "0");
    }
}
