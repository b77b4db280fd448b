//! What clients send: query parameters, path segments, JSON bodies. Every refusal names the
//! parameter or field and says what would do.

use super::BODY_BYTES_MAX;
use super::error::{ApiError, ApiResult};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use model::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;
use storage::catalog::{Cursor, Page, PageRequest};

/// The query. Of equal names the first counts; an empty value is as none.
#[derive(Debug, Default)]
pub struct Params(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        Ok(Self::of(&parts.uri))
    }
}

/// The default and the largest page of the contract's lists.
const PAGE_ROWS: u64 = 50;
const PAGE_ROWS_MAX: u64 = 200;
const TEXT_CHARS_MAX: usize = 1_024;
const REASON_CHARS_MAX: usize = 1_000;
const REASON: &str = "at most 1000 characters, none of them NUL";
/// Unknown fields of a body that its refusal names.
const UNKNOWN_NAMED_MAX: usize = 10;

impl Params {
    pub fn of(uri: &Uri) -> Self {
        let mut params = BTreeMap::new();
        if let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) {
            for (name, value) in pairs {
                params.entry(name).or_insert(value);
            }
        }
        params.retain(|_, value| !value.is_empty());
        Self(params)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A text of bounded length.
    pub fn bounded(&self, name: &str) -> ApiResult<Option<String>> {
        match self.text(name) {
            Some(text) if text.chars().count() > TEXT_CHARS_MAX => {
                Err(ApiError::invalid(format!("{name}: at most {TEXT_CHARS_MAX} characters")))
            }
            text => Ok(text.map(str::to_owned)),
        }
    }

    /// `reason` of a change, for its audit row, where the body has no place for it.
    pub fn reason(&self) -> ApiResult<Option<String>> {
        match self.text("reason").map(str::trim) {
            Some(reason) if reason.chars().count() > REASON_CHARS_MAX || reason.contains('\0') => {
                Err(ApiError::invalid(format!("reason: it must be {REASON}")))
            }
            reason => Ok(reason.filter(|text| !text.is_empty()).map(str::to_owned)),
        }
    }

    pub fn number<T: FromStr + PartialOrd + Display + Copy>(
        &self,
        name: &str,
        range: RangeInclusive<T>,
    ) -> ApiResult<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.trim().parse::<T>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(ApiError::invalid(format!(
                "{name}: `{}` is not a whole number from {} to {}",
                shown(text),
                range.start(),
                range.end()
            ))),
        }
    }

    /// A number that means something, not an amount.
    pub fn id<T: FromStr>(&self, name: &str) -> ApiResult<Option<T>> {
        self.read(name, "a whole number", |text| text.parse().ok())
    }

    /// A value that its type can read.
    pub fn read<T>(&self, name: &str, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> ApiResult<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match read(text.trim()) {
            Some(value) => Ok(Some(value)),
            None => Err(ApiError::invalid(format!("{name}: `{}` is not {expected}", shown(text)))),
        }
    }

    /// The beginning of a span of time.
    pub fn from(&self, name: &str) -> ApiResult<Option<Timestamp>> {
        self.read(name, TIME, |text| time(text).map(|span| span.0))
    }

    /// The end of a span of time, included; a bare date means its whole day.
    pub fn to(&self, name: &str) -> ApiResult<Option<Timestamp>> {
        self.read(name, TIME, |text| time(text).map(|(start, lasts)| start.plus(lasts)))
    }

    /// `page` and `limit` of the contract's lists; a limit over the largest page is the largest page.
    pub fn page(&self) -> ApiResult<PageRequest> {
        let page = self.number("page", 1..=1_000_000_000)?.unwrap_or(1);
        let expected = format!("a whole number from 1 to {PAGE_ROWS_MAX}");
        let limit = self.read("limit", &expected, |text| text.parse::<u64>().ok().filter(|n| *n > 0))?;
        Ok(PageRequest { page, limit: limit.unwrap_or(PAGE_ROWS).min(PAGE_ROWS_MAX) })
    }

    /// `cursor` of a list that goes on where a page ended; not together with another page than the first.
    pub fn cursor(&self, page: PageRequest) -> ApiResult<Option<Cursor>> {
        let cursor = self.read("cursor", "a `next_cursor` of this list", Cursor::parse)?;
        if cursor.is_some() && page.page > 1 {
            return Err(ApiError::invalid("cursor: not together with page; it goes on where a page ended"));
        }
        Ok(cursor)
    }

    /// `limit` of our own lists.
    pub fn limit(&self, default: usize, most: usize) -> ApiResult<usize> {
        Ok(self.number("limit", 1..=most)?.unwrap_or(default))
    }
}

const TIME: &str =
    "a time such as 2026-11-22T10:00:00Z, 2026-11-22, Sun, 22 Nov 2026 10:00:00 GMT or seconds since 1970";

/// A time, and what passes from there until the next one that could be written so.
fn time(text: &str) -> Option<(Timestamp, Duration)> {
    const DAY: Duration = Duration::from_micros(86_400_000_000 - 1);
    const SECOND: Duration = Duration::from_micros(1_000_000 - 1);
    /// The year 1973: a smaller number is rather the beginning of a date than seconds.
    const SECONDS_MIN: f64 = 1e8;
    let is_date = text.len() == 10 && text.split('-').map(str::len).eq([4, 2, 2]);
    if is_date {
        return Timestamp::parse(&format!("{text}T00:00:00Z")).map(|day| (day, DAY));
    }
    if text.parse::<f64>().is_ok_and(|number| number < SECONDS_MIN) {
        return None;
    }
    // A `+` that was not escaped in the URL has become a space.
    let exact = Timestamp::parse(text).or_else(|| Timestamp::parse(&text.replace(' ', "+")));
    // As our own answers show times, without what follows the second.
    exact.map(|at| (at, Duration::ZERO)).or_else(|| Timestamp::parse_rfc1123(text).map(|at| (at, SECOND)))
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// `pagination` of the contract's lists.
pub fn pagination(page: PageRequest, total: u64) -> Value {
    json!({ "page": page.page, "limit": page.limit, "total": total, "pages": total.div_ceil(page.limit.max(1)) })
}

/// The same of a list that a cursor can go through; `next_cursor` is there while there is more.
pub fn pagination_to<T>(page: PageRequest, found: &Page<T>) -> Value {
    let mut pagination = pagination(page, found.total);
    if let Some(next) = found.next {
        pagination["next_cursor"] = next.to_string().into();
    }
    pagination
}

/// One segment of the path, as text.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(segment)) => Ok(Self(segment)),
            Err(_) => Err(ApiError::invalid("the path is not UTF-8")),
        }
    }
}

/// Two segments of the path, in order.
pub struct Segments(pub [String; 2]);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        match Path::<[String; 2]>::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(_) => Err(ApiError::invalid("the path is not UTF-8")),
        }
    }
}

/// A JSON object, which has to be there.
pub struct Object(pub Map<String, Value>);
/// A JSON object, or no body at all, which is as an empty one.
pub struct MaybeObject(pub Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        let is_json = says_json(request.headers());
        let body = read(request, state).await?;
        if !is_json {
            return Err(ApiError::invalid("Content-Type must be application/json"));
        }
        parse(&body).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for MaybeObject {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        let body = read(request, state).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Map::new()));
        }
        parse(&body).map(Self)
    }
}

const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// The whole body, bounded in size and time.
pub async fn read<S: Send + Sync>(request: Request, state: &S) -> ApiResult<Bytes> {
    read_up_to(request, state, BODY_BYTES_MAX, BODY_TIMEOUT).await
}

/// The same with other bounds; that of the size is the route's own.
pub async fn read_up_to<S: Send + Sync>(
    request: Request,
    state: &S,
    bytes_max: usize,
    time_max: Duration,
) -> ApiResult<Bytes> {
    match tokio::time::timeout(time_max, Bytes::from_request(request, state)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(ApiError::body_too_large(bytes_max))
        }
        Ok(Err(_)) => Err(ApiError::invalid("the body cannot be read")),
        Err(_) => Err(ApiError::body_too_slow()),
    }
}

fn parse(body: &[u8]) -> ApiResult<Map<String, Value>> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::invalid("the body must be a JSON object")),
        Err(error) => Err(ApiError::invalid(format!("the body is not JSON: {error}"))),
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let mime = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    mime == "application/json" || (mime.starts_with("application/") && mime.ends_with("+json"))
}

/// Reads the fields of a body; keeps what is wrong with each.
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    pub problems: BTreeMap<String, String>,
}

impl<'a> Fields<'a> {
    pub fn new(object: &'a Map<String, Value>) -> Self {
        Self { object, problems: BTreeMap::new() }
    }

    pub fn problem(&mut self, name: &str, message: impl Into<String>) {
        self.problems.entry(name.to_owned()).or_insert_with(|| message.into());
    }

    /// `None`: not given. `Some(None)`: given as null.
    pub fn given(&self, name: &str) -> Option<Option<&'a Value>> {
        self.object.get(name).map(|value| if value.is_null() { None } else { Some(value) })
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.given(name).flatten()
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.problem(name, "it must be a text");
                None
            }
        }
    }

    /// A whole number, also as text.
    pub fn whole<T: FromStr + TryFrom<i64>>(&mut self, name: &str, expected: &str) -> Option<T> {
        let number = match self.value(name)? {
            Value::Number(number) => number.as_i64().and_then(|n| T::try_from(n).ok()),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        if number.is_none() {
            self.problem(name, expected);
        }
        number
    }

    pub fn truth(&mut self, name: &str) -> Option<bool> {
        match self.value(name)? {
            Value::Bool(truth) => Some(*truth),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => {
                self.problem(name, "it must be true or false");
                None
            }
        }
    }

    /// `reason` of a change, for its audit row.
    pub fn reason(&mut self) -> Option<String> {
        let reason = self.text("reason")?;
        if reason.chars().count() > REASON_CHARS_MAX || reason.contains('\0') {
            self.problem("reason", format!("it must be {REASON}"));
            return None;
        }
        (!reason.trim().is_empty()).then_some(reason)
    }

    /// Refuses fields of other names, where passing over one would do something that was not meant.
    pub fn only(&mut self, names: &[&str]) {
        for unknown in self.object.keys().filter(|key| !names.contains(&key.as_str())).take(UNKNOWN_NAMED_MAX) {
            let shown: String = unknown.chars().take(80).collect();
            self.problem(&shown, format!("there is no such field; there are {}", names.join(", ")));
        }
    }

    /// `Err` when anything was wrong.
    pub fn done(self, what: &str) -> ApiResult<()> {
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::fields(what, self.problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().unwrap())
    }

    #[test]
    fn a_bad_parameter_is_named() {
        for (query, name) in [("page=0", "page"), ("page=x", "page"), ("limit=-1", "limit"), ("limit=1.5", "limit")] {
            assert!(params(query).page().unwrap_err().message().starts_with(name), "{query}");
        }
        let page = params("limit=9999&page=").page().unwrap();
        assert_eq!((page.page, page.limit), (1, PAGE_ROWS_MAX), "an empty value is none, a large one the largest");
    }

    #[test]
    fn times_of_every_form_and_whole_days() {
        let start = |query: &str| params(query).from("t").unwrap().map(Timestamp::rfc3339);
        assert_eq!(start("t=2026-11-22").as_deref(), Some("2026-11-22T00:00:00.000000Z"));
        assert_eq!(start("t=2026-11-22T10:00:00%2B02:00").as_deref(), Some("2026-11-22T08:00:00.000000Z"));
        assert_eq!(start("t=2026-11-22T10:00:00+02:00").as_deref(), Some("2026-11-22T08:00:00.000000Z"));
        assert_eq!(start("other=1"), None);
        let end = params("t=2026-11-22").to("t").unwrap().map(Timestamp::rfc3339);
        assert_eq!(end.as_deref(), Some("2026-11-22T23:59:59.999999Z"));
        let shown = "t=Sun,+22+Nov+2026+10:00:00+GMT";
        assert_eq!(start(shown).as_deref(), Some("2026-11-22T10:00:00.000000Z"));
        let end = params(shown).to("t").unwrap().map(Timestamp::rfc3339);
        assert_eq!(end.as_deref(), Some("2026-11-22T10:00:00.999999Z"), "what is shown as this second is within");
        assert_eq!(start("t=1795341600").as_deref(), Some("2026-11-22T10:00:00.000000Z"));
        for bad in ["t=yesterday", "t=2026-13-01", "t=99-1-1", "t=2026", "t=20261122", "t=-5", "t=Sun"] {
            assert!(params(bad).from("t").unwrap_err().message().starts_with("t: "), "{bad}");
        }
    }

    #[test]
    fn of_equal_names_the_first_counts() {
        assert_eq!(params("a=1&a=2").text("a"), Some("1"));
    }
}
