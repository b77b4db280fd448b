//! A JSON object becomes leaves. Windows events are recognised by their shape on the way and give
//! plain names; everything else gives dotted names, as `model::Fields` says.

use crate::json::{Reader, Value};
use crate::{DEPTH_MAX, FieldsError, LEAVES_MAX, NAME_MAX};
use model::{Fields, Leaf, number_text};
use std::borrow::Cow;

/// Where in an event a key stands, which decides how its leaves are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Names are joined by dots.
    Plain,
    /// The object that holds everything of the event.
    Root,
    /// The `Event` of a Windows event.
    Event,
    /// `System` of a Windows event: `EventID`, `Provider_Name`, …
    System,
    /// `EventData`: names are the keys themselves.
    EventData,
    /// `UserData`: one object with a name of its own, and in it what `EventData` is.
    UserData,
}

/// What the `System` part of a Windows event says: indices of leaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WindowsSystem {
    pub channel: Option<usize>,
    pub event_id: Option<usize>,
    pub provider: Option<usize>,
}

/// Whether what passes a bound is an error, or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bounds {
    Refuse,
    LeaveOut,
}

/// What flattening found beside leaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flattened {
    /// The event has a `System` part as Windows writes it.
    pub windows: Option<WindowsSystem>,
    /// Something was left out because of a bound.
    pub cut: bool,
}

/// Adds the leaves of the object to `out`.
pub(crate) fn flatten<'a>(text: &'a str, bounds: Bounds, out: &mut Fields<'a>) -> Result<Flattened, FieldsError> {
    // Files of some programs begin with a mark that is no part of the text.
    let mut reader = Reader::new(text.strip_prefix('\u{feff}').unwrap_or(text));
    if !matches!(reader.value(), Ok(Value::Object)) {
        return Err(FieldsError::NotAnObject);
    }
    // Most events have a value in every forty bytes or fewer.
    out.reserve((text.len() / 32).clamp(8, 64));
    let mut flattener =
        Flattener { reader, path: String::new(), depth: 1, left: LEAVES_MAX, bounds, found: Flattened::default(), out };
    flattener.object(0, Place::Root)?;
    flattener.reader.end()?;
    Ok(flattener.found)
}

struct Flattener<'a, 'o> {
    reader: Reader<'a>,
    /// Names around the current one, each with its dot behind it.
    path: String,
    depth: usize,
    left: usize,
    bounds: Bounds,
    found: Flattened,
    out: &'o mut Fields<'a>,
}

impl<'a> Flattener<'a, '_> {
    /// The members of an object whose bracket was read. The first `prefix` bytes of the path are
    /// the names around it.
    fn object(&mut self, prefix: usize, place: Place) -> Result<(), FieldsError> {
        let mut first = true;
        loop {
            let key = match self.reader.plain_key(first) {
                Some(key) => {
                    // Most members of most events are texts, and those mean the same in each of these.
                    if matches!(place, Place::Root | Place::Plain)
                        && let Some(text) = self.reader.plain_text()
                    {
                        self.plain_leaf(prefix, key, text)?;
                        first = false;
                        continue;
                    }
                    Cow::Borrowed(key)
                }
                None => match self.reader.key(first)? {
                    Some(key) => key,
                    None => return Ok(()),
                },
            };
            first = false;
            self.member(prefix, key, place)?;
        }
    }

    fn member(&mut self, prefix: usize, key: Cow<'a, str>, place: Place) -> Result<(), FieldsError> {
        match place {
            Place::Root => {
                if let Some(inner) = self.opens_windows(&key) {
                    self.reader.value()?;
                    return self.nested(prefix, inner);
                }
                self.value(prefix, key, Place::Plain)
            }
            Place::Event => match (&*key, self.reader.first_key_ahead()) {
                ("System", Some(_)) => {
                    self.reader.value()?;
                    self.found.windows.get_or_insert_default();
                    self.nested(prefix, Place::System)
                }
                ("EventData", Some(_)) => {
                    self.reader.value()?;
                    self.nested(prefix, Place::EventData)
                }
                ("UserData", Some(_)) => {
                    self.reader.value()?;
                    self.nested(prefix, Place::UserData)
                }
                // The name space of the XML says nothing.
                ("#attributes" | "@xmlns" | "xmlns", _) => self.skip(),
                _ => self.value(prefix, key, Place::Plain),
            },
            Place::System => self.system(key),
            Place::UserData => match self.reader.first_key_ahead() {
                Some(_) => {
                    self.reader.value()?;
                    self.nested(prefix, Place::EventData)
                }
                None => self.value(prefix, key, Place::Plain),
            },
            Place::EventData => match &*key {
                "#attributes" | "@xmlns" | "xmlns" => self.skip(),
                _ => self.value(prefix, key, Place::EventData),
            },
            Place::Plain => self.value(prefix, key, Place::Plain),
        }
    }

    /// What a key of the outermost object opens, if it is part of a Windows event: told by the key
    /// and by the first key within.
    fn opens_windows(&mut self, key: &str) -> Option<Place> {
        if !matches!(key, "Event" | "System" | "EventData" | "UserData") {
            return None;
        }
        let within = self.reader.first_key_ahead()?;
        match key {
            "Event" => matches!(
                within,
                "#attributes" | "@xmlns" | "xmlns" | "System" | "EventData" | "UserData" | "RenderingInfo"
            )
            .then_some(Place::Event),
            "System" => {
                let known = matches!(
                    within,
                    "Provider"
                        | "Provider_attributes"
                        | "Channel"
                        | "Computer"
                        | "Correlation"
                        | "EventID"
                        | "EventRecordID"
                        | "Execution"
                        | "Correlation_attributes"
                );
                if known {
                    self.found.windows.get_or_insert_default();
                }
                known.then_some(Place::System)
            }
            // Others have an `EventData` too: only beside a `System` is it one of Windows.
            "EventData" => self.found.windows.map(|_| Place::EventData),
            _ => self.found.windows.map(|_| Place::UserData),
        }
    }

    /// A member of `System`: a scalar, or an object of attributes and a text.
    fn system(&mut self, key: Cow<'a, str>) -> Result<(), FieldsError> {
        let (parent, attributes) = match key.strip_suffix("_attributes") {
            Some(parent) => (parent, true),
            None => (&*key, false),
        };
        if self.reader.first_key_ahead().is_none() {
            let before = self.out.leaves().len();
            self.value(0, key.clone(), Place::Plain)?;
            self.note(&key, before);
            return Ok(());
        }
        self.reader.value()?;
        self.deeper(|this| this.system_parts(parent, attributes))
    }

    /// The members of an object within `System`, its bracket read.
    fn system_parts(&mut self, parent: &str, attributes: bool) -> Result<(), FieldsError> {
        let mut first = true;
        while let Some(key) = self.reader.key(first)? {
            first = false;
            if key == "#attributes" && self.reader.first_key_ahead().is_some() {
                self.reader.value()?;
                self.deeper(|this| this.system_parts(parent, true))?;
                continue;
            }
            let name: Cow<'a, str> = match (parent, &*key) {
                ("Provider", "Name" | "@Name") => Cow::Borrowed("Provider_Name"),
                ("Provider", "Guid" | "@Guid") => Cow::Borrowed("Provider_Guid"),
                ("TimeCreated", "SystemTime" | "@SystemTime") => Cow::Borrowed("TimeCreated_SystemTime"),
                ("Execution", "ProcessID") => Cow::Borrowed("Execution_ProcessID"),
                ("Execution", "ThreadID") => Cow::Borrowed("Execution_ThreadID"),
                ("EventID", "#text" | "Value" | "$value") if !attributes => Cow::Borrowed("EventID"),
                (parent, "#text" | "Value" | "$value") if !attributes => Cow::Owned(parent.to_owned()),
                (parent, key) => {
                    if parent.len() + key.len() >= NAME_MAX {
                        self.over(FieldsError::NameTooLong { max: NAME_MAX })?;
                        self.skip()?;
                        continue;
                    }
                    Cow::Owned(format!("{parent}_{}", key.trim_start_matches('@')))
                }
            };
            let before = self.out.leaves().len();
            self.value(0, name.clone(), Place::Plain)?;
            self.note(&name, before);
        }
        Ok(())
    }

    /// Remembers a leaf of `System` that says what kind of event this is.
    fn note(&mut self, name: &str, index: usize) {
        if self.out.leaves().len() == index {
            return;
        }
        let system = self.found.windows.get_or_insert_default();
        let slot = match name {
            "Channel" => &mut system.channel,
            "EventID" => &mut system.event_id,
            "Provider_Name" => &mut system.provider,
            _ => return,
        };
        slot.get_or_insert(index);
    }

    /// The value at the position, called `key` behind the path's first `prefix` bytes.
    #[inline]
    fn value(&mut self, prefix: usize, key: Cow<'a, str>, place: Place) -> Result<(), FieldsError> {
        let value = self.reader.value()?;
        self.read(prefix, key, place, value)
    }

    #[inline]
    fn read(&mut self, prefix: usize, key: Cow<'a, str>, place: Place, value: Value<'a>) -> Result<(), FieldsError> {
        match value {
            Value::Text(text) => self.leaf(prefix, key, Some(text)),
            Value::Integer("-0") => self.leaf(prefix, key, Some(Cow::Borrowed("0"))),
            Value::Integer(written) => self.leaf(prefix, key, Some(Cow::Borrowed(written))),
            Value::Number(written) => self.leaf(prefix, key, Some(number_text(written))),
            Value::Bool(true) => self.leaf(prefix, key, Some(Cow::Borrowed("true"))),
            Value::Bool(false) => self.leaf(prefix, key, Some(Cow::Borrowed("false"))),
            Value::Null => self.leaf(prefix, key, None),
            Value::Array => self.deeper(|this| this.elements(prefix, key, place)),
            Value::Object if place == Place::EventData => self.deeper(|this| this.data(prefix, key)),
            Value::Object => self.deeper(|this| this.members(prefix, key)),
        }
    }

    /// The elements of an array called `key`, its bracket read.
    fn elements(&mut self, prefix: usize, key: Cow<'a, str>, place: Place) -> Result<(), FieldsError> {
        if !self.reader.element(true)? {
            return self.leaf(prefix, key, None);
        }
        loop {
            self.value(prefix, key.clone(), place)?;
            if !self.reader.element(false)? {
                return Ok(());
            }
        }
    }

    /// The members of an object called `key`, its bracket read.
    fn members(&mut self, prefix: usize, key: Cow<'a, str>) -> Result<(), FieldsError> {
        if prefix + key.len() >= NAME_MAX {
            // Names within would be longer still.
            self.over(FieldsError::NameTooLong { max: NAME_MAX })?;
            return self.reader.skip_open();
        }
        let Some(mut within) = self.reader.key(true)? else {
            return self.leaf(prefix, key, None);
        };
        let prefix = self.enter(prefix, &key);
        loop {
            self.value(prefix, within, Place::Plain)?;
            match self.reader.key(false)? {
                Some(next) => within = next,
                None => return Ok(()),
            }
        }
    }

    /// Puts a name behind the path's first `prefix` bytes; the length of all.
    fn enter(&mut self, prefix: usize, key: &str) -> usize {
        self.path.truncate(prefix);
        self.path.push_str(key);
        self.path.push('.');
        self.path.len()
    }

    /// An object within `EventData`: an element with attributes, a text and perhaps a name, or
    /// anything.
    fn data(&mut self, prefix: usize, key: Cow<'a, str>) -> Result<(), FieldsError> {
        let mut name: Option<Cow<'a, str>> = None;
        let mut text = false;
        let mut first = true;
        while let Some(inner) = self.reader.key(first)? {
            first = false;
            match &*inner {
                "#attributes" if self.reader.first_key_ahead() == Some("Name") => {
                    self.reader.value()?;
                    self.deeper(|this| {
                        let mut first = true;
                        while let Some(attribute) = this.reader.key(first)? {
                            first = false;
                            match this.reader.value()? {
                                Value::Text(given) if attribute == "Name" => name = Some(given),
                                other => this.pass(other)?,
                            }
                        }
                        Ok(())
                    })?;
                }
                "@Name" | "Name" if !text && name.is_none() => match self.reader.value()? {
                    Value::Text(given) => name = Some(given),
                    other => self.read(prefix, inner, Place::Plain, other)?,
                },
                "#text" | "$value" => {
                    text = true;
                    let called = name.clone().unwrap_or_else(|| key.clone());
                    self.value(prefix, called, Place::Plain)?;
                }
                _ => {
                    if prefix + key.len() >= NAME_MAX {
                        self.over(FieldsError::NameTooLong { max: NAME_MAX })?;
                        self.skip()?;
                        continue;
                    }
                    let prefix = self.enter(prefix, &key);
                    self.value(prefix, inner, Place::Plain)?;
                }
            }
        }
        match name {
            Some(name) if !text => self.leaf(prefix, name, None),
            None if first => self.leaf(prefix, key, None),
            Some(_) | None => Ok(()),
        }
    }

    fn nested(&mut self, prefix: usize, place: Place) -> Result<(), FieldsError> {
        self.deeper(|this| this.object(prefix, place))
    }

    /// Reads the value at the position and gives no field for it.
    fn skip(&mut self) -> Result<(), FieldsError> {
        let value = self.reader.value()?;
        self.pass(value)
    }

    fn pass(&mut self, value: Value<'a>) -> Result<(), FieldsError> {
        match value {
            Value::Array | Value::Object => self.reader.skip_open(),
            Value::Text(_) | Value::Integer(_) | Value::Number(_) | Value::Bool(_) | Value::Null => Ok(()),
        }
    }

    /// One level further down, behind a bracket.
    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Result<(), FieldsError>) -> Result<(), FieldsError> {
        if self.depth == DEPTH_MAX {
            self.over(FieldsError::TooDeep { max: DEPTH_MAX })?;
            return self.reader.skip_open();
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// As [`Self::leaf`], for the most frequent.
    #[inline(always)]
    fn plain_leaf(&mut self, prefix: usize, key: &'a str, text: &'a str) -> Result<(), FieldsError> {
        if prefix > 0 || self.left == 0 || key.len() > NAME_MAX {
            return self.leaf(prefix, Cow::Borrowed(key), Some(Cow::Borrowed(text)));
        }
        self.left -= 1;
        self.out.push_leaf(Leaf { name: Cow::Borrowed(key), value: Some(Cow::Borrowed(text)) });
        Ok(())
    }

    fn leaf(&mut self, prefix: usize, key: Cow<'a, str>, value: Option<Cow<'a, str>>) -> Result<(), FieldsError> {
        if self.left == 0 {
            return self.over(FieldsError::TooMany { max: LEAVES_MAX });
        }
        if prefix + key.len() > NAME_MAX {
            return self.over(FieldsError::NameTooLong { max: NAME_MAX });
        }
        self.left -= 1;
        let name = if prefix == 0 { key } else { Cow::Owned(self.joined(prefix, &key)) };
        self.out.push_leaf(Leaf { name, value });
        Ok(())
    }

    fn joined(&self, prefix: usize, key: &str) -> String {
        let mut name = String::with_capacity(prefix + key.len());
        name.push_str(&self.path[..prefix]);
        name.push_str(key);
        name
    }

    fn over(&mut self, error: FieldsError) -> Result<(), FieldsError> {
        self.found.cut = true;
        match self.bounds {
            Bounds::Refuse => Err(error),
            Bounds::LeaveOut => Ok(()),
        }
    }
}
