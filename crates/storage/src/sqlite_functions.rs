//! The functions of detection rules' SQL ([`rules::sql::functions`]), registered on a connection.

use rules::sql::functions::{Answer, FUNCTIONS, Prepared};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error};

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// Registers all of them. They see their arguments only, so a statement with them can do nothing that
/// it could not do without.
pub(crate) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    for function in FUNCTIONS {
        let failed = |error: rules::sql::functions::ConstantError| Error::UserFunctionError(Box::new(error));
        let plain = match function.constant_at {
            None => Some(function.prepare("").map_err(failed)?),
            Some(_) => None,
        };
        let arity = if function.constant_at.is_some() { 2 } else { 1 };
        let call = move |context: &mut Context<'_>| {
            let answer = match (&plain, function.constant_at) {
                (Some(plain), _) => ask(plain, context, function.value_at),
                (None, constant_at) => {
                    let at = constant_at.and_then(|at| i32::try_from(at).ok()).unwrap_or_default();
                    // Read once a statement.
                    let prepared = context.get_or_create_aux(at, |constant| -> Result<Prepared, Boxed> {
                        Ok(function.prepare(constant.as_str()?)?)
                    })?;
                    ask(&prepared, context, function.value_at)
                }
            };
            Ok(match answer {
                Answer::Text(text) => Value::Text(text),
                Answer::Integer(number) => Value::Integer(number),
                Answer::Real(number) => Value::Real(number),
                Answer::Null => Value::Null,
            })
        };
        connection.create_scalar_function(function.name, arity, flags, call)?;
    }
    Ok(())
}

/// The answer for a text; anything else has none.
fn ask(prepared: &Prepared, context: &Context<'_>, value_at: usize) -> Answer {
    match context.get_raw(value_at) {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).map_or(Answer::Null, prepared),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => Answer::Null,
    }
}
