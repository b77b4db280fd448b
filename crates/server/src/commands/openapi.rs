//! `muttd openapi`.

use super::out;
use std::process::ExitCode;

pub fn run() -> ExitCode {
    out(&format!("{:#}\n", crate::api::openapi()));
    ExitCode::SUCCESS
}
