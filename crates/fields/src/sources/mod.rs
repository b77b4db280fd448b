//! What kind of event is this? Looks at fields that only one kind of log has, sets
//! `Fields::source`, and adds the names that rules for that log source use.
//!
//! To add a log source: a function `fn(&mut Fields<'_>) -> bool` in the file of its family (or a
//! new file), and a row in [`ALL`] with the fields of which its events have at least one. It
//! answers `false`, having changed nothing, unless the event is certainly its own. The first that
//! answers `true` is the last that is asked. The smallest one to imitate is `cloud::onelogin`.

mod cloud;
mod ecs;
mod generic;
mod linux;
mod marks;
pub(crate) mod windows;
mod zeek;

use crate::flatten::Flattened;
use marks::Mark;
pub(crate) use marks::Marks;
use model::Fields;
use std::borrow::Cow;

/// A recogniser, and the fields without any of which it need not be asked.
type Recogniser = (&'static [&'static str], fn(&mut Fields<'_>) -> bool);

/// All recognisers but the one for Windows, in the order they are asked.
const ALL: &[Recogniser] = &[
    (&["eventSource"], cloud::aws),
    (&["category", "Category", "riskEventType", "properties.riskEventType"], cloud::azure),
    (&["protoPayload.@type", "id.applicationName"], cloud::gcp),
    (&["auditID", "apiVersion"], cloud::kubernetes),
    (&["Workload"], cloud::m365),
    (&["eventType"], cloud::okta),
    (&["action"], cloud::github),
    (&["event_type_id"], cloud::onelogin),
    (&["_path", "@path"], zeek::recognise),
    (&["dest_ip"], generic::suricata),
    (&["ID"], linux::laurel),
    (&["type"], linux::auditd),
    (&["logtype"], generic::opencanary),
    (&["event.category"], ecs::recognise),
    (generic::WEB_MARKS, generic::web),
];

/// Fields of an event that are looked at one by one for a second name: each look may walk over all.
const RENAMED_MAX: usize = 256;

/// Sets `out.source` and adds aliases.
pub(crate) fn recognise(found: &Flattened, out: &mut Fields<'_>) {
    let marks = Marks::of(out);
    recognise_written(found, marks, out);
    // Last, so that what the event says of itself wins.
    if marks.has(Mark::Explicit) {
        explicit(out);
    }
}

/// The same by what the fields are, whatever they say of themselves.
pub(crate) fn recognise_written(found: &Flattened, marks: Marks, out: &mut Fields<'_>) {
    if !windows::recognise(found, marks, out) {
        let mut rows = ALL.iter().enumerate();
        let _ = rows.any(|(row, (_, recogniser))| marks.has(Mark::Row(row)) && recogniser(out));
    }
}

/// The words of an object that names the log source.
const EXPLICIT: &[&str] = &[
    "logsource.product",
    "logsource.category",
    "logsource.service",
    "_logsource.product",
    "_logsource.category",
    "_logsource.service",
];

/// An object `logsource` (or `_logsource`) in the event itself, in Sigma's words.
fn explicit(out: &mut Fields<'_>) {
    for (product, category, service) in [
        ("logsource.product", "logsource.category", "logsource.service"),
        ("_logsource.product", "_logsource.category", "_logsource.service"),
    ] {
        if let Some(product) = get(out, product) {
            out.source.product = Some(lower(product));
        }
        let categories: Vec<_> = all(out, category).map(lower).collect();
        if !categories.is_empty() {
            out.source.categories = Some(categories);
        }
        let services: Vec<_> = all(out, service).map(lower).collect();
        if !services.is_empty() {
            out.source.services = Some(services);
        }
    }
}

/// The first value of a field, as it lies there.
pub(crate) fn get<'a>(out: &Fields<'a>, name: &str) -> Option<Cow<'a, str>> {
    all(out, name).next()
}

fn all<'a, 'f>(out: &'f Fields<'a>, name: &'f str) -> impl Iterator<Item = Cow<'a, str>> + use<'a, 'f> {
    out.leaves().iter().filter(move |leaf| leaf.name == name).filter_map(|leaf| leaf.value.clone())
}

fn lower(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) { Cow::Owned(text.to_ascii_lowercase()) } else { text }
}

/// Adds the value of `theirs` under the name `ours`, unless `ours` is there.
pub(crate) fn alias(out: &mut Fields<'_>, ours: &'static str, theirs: &str) {
    if !out.exists(ours)
        && let Some(value) = get(out, theirs)
    {
        out.push(ours, value);
    }
}

/// As [`alias`] for `SourceIp`, if the value is an address.
pub(crate) fn address(out: &mut Fields<'_>, theirs: &str) {
    if out.first(theirs).is_some_and(|value| value.parse::<std::net::IpAddr>().is_ok()) {
        alias(out, "SourceIp", theirs);
    }
}

/// Adds a value unless the field is there.
pub(crate) fn push_missing<'a>(out: &mut Fields<'a>, name: &'static str, value: impl Into<Cow<'a, str>>) {
    if !out.exists(name) {
        out.push(name, value);
    }
}

/// Sets all three parts.
pub(crate) fn set(out: &mut Fields<'_>, product: &'static str, categories: &[&'static str], services: &[&'static str]) {
    out.source.product = Some(Cow::Borrowed(product));
    out.source.categories = Some(known(categories));
    out.source.services = Some(known(services));
}

pub(crate) fn known(words: &[&'static str]) -> Vec<Cow<'static, str>> {
    words.iter().copied().map(Cow::Borrowed).collect()
}
