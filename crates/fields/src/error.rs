//! Why a text gave no fields.

/// What is wrong with a JSON text, or which bound it passes. Offsets are bytes from its beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    #[error("not a JSON object")]
    NotAnObject,
    #[error("invalid JSON at byte {at}: expected {expected}")]
    Syntax { at: usize, expected: &'static str },
    #[error("nested deeper than {max} levels")]
    TooDeep { max: usize },
    #[error("more than {max} values")]
    TooMany { max: usize },
    #[error("a field name, with the names around it, is longer than {max} bytes")]
    NameTooLong { max: usize },
}
