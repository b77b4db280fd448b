//! Files of events → blocks of whole lines, in order.
//!
//! A file holds a JSON object a line, an array of objects, or objects one after the other over
//! several lines each; `.gz` and `.zst` are unpacked. Only what is not an object a line has to fit
//! into memory.

use anyhow::{Context, Result, bail};
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// About the size of a block, in bytes.
const BLOCK_BYTES: usize = 1 << 18;
/// Longest line.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Largest file that is not an object a line, unpacked.
const WHOLE_BYTES_MAX: u64 = 2 << 30;

/// Whole lines of one file.
pub struct Block {
    /// Counts from 0 over all files.
    pub number: u64,
    pub file: Arc<str>,
    /// Number of the first line in its file, from 1.
    pub first_line: u64,
    /// Number of its first event over all files, from 0.
    pub first_event: u64,
    pub text: Vec<u8>,
}

impl Block {
    /// Its lines that are not blank, with their numbers in the file.
    pub fn events(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let lines = (self.first_line..).zip(self.text.split(|byte| *byte == b'\n'));
        let trimmed = lines.map(|(line, text)| {
            let text = text.trim_ascii();
            (line, text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text))
        });
        trimmed.filter(|(_, text)| !text.is_empty())
    }
}

/// Files to hunt in: those named, and `*.json`, `*.jsonl`, `*.ndjson`, `*.log` (also packed) below
/// folders, in the order of their names. `-` is the standard input.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        walk(path, true, &mut found)?;
    }
    if found.is_empty() {
        bail!("there are no files of events here (*.json, *.jsonl, *.ndjson, *.log, also .gz and .zst)");
    }
    Ok(found)
}

fn walk(path: &Path, named: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut below: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        below.sort();
        return below.iter().try_for_each(|path| walk(path, false, found));
    }
    let name = path.to_string_lossy();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    if named || [".json", ".jsonl", ".ndjson", ".log"].iter().any(|end| name.ends_with(end)) {
        found.push(path.to_owned());
    }
    Ok(())
}

/// Hands the blocks of all files to `take`, until it says that it wants no more.
pub fn read(files: &[PathBuf], mut take: impl FnMut(Block) -> bool) -> Result<()> {
    let (mut number, mut first_event) = (0, 0);
    for path in files {
        let name: Arc<str> = path.display().to_string().into();
        let mut reader = open(path).with_context(|| format!("cannot open {name}"))?;
        let mut give = |first_line, text| {
            let block = Block { number, file: Arc::clone(&name), first_line, first_event, text };
            number += 1;
            first_event += block.events().count() as u64;
            take(block)
        };
        let goes_on = if an_object_a_line(reader.as_mut())? {
            by_lines(reader.as_mut(), &mut give)
        } else {
            whole(reader.as_mut(), &mut give)
        };
        if !goes_on.with_context(|| format!("cannot read {name}"))? {
            return Ok(());
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::with_capacity(BLOCK_BYTES, std::io::stdin())));
    }
    let file = File::open(path)?;
    let packed: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(file)?),
        _ => Box::new(file),
    };
    Ok(Box::new(BufReader::with_capacity(BLOCK_BYTES, packed)))
}

/// Judged by the first line, as far as the buffer shows it.
fn an_object_a_line(reader: &mut dyn BufRead) -> Result<bool> {
    let start = reader.fill_buf()?;
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let mut lines = start.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let Some(first) = lines.next() else { return Ok(true) };
    Ok(match first {
        [b'['] => false,
        [b'[', ..] => false,
        [b'{'] => false,
        // A first line that was cut by the buffer is one that is very long; one that ends open is not
        // an object.
        first => {
            lines.next().is_none() && first.len() + 16 >= start.len()
                || serde_json::from_slice::<&RawValue>(first).is_ok()
                || !first.starts_with(b"{")
        }
    })
}

fn by_lines(reader: &mut dyn BufRead, give: &mut impl FnMut(u64, Vec<u8>) -> bool) -> Result<bool> {
    let mut line = 1;
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let mut text = std::mem::take(&mut rest);
        text.reserve(BLOCK_BYTES);
        loop {
            let read = reader.fill_buf()?;
            if read.is_empty() {
                break;
            }
            let taken = read.len();
            text.extend_from_slice(read);
            reader.consume(taken);
            if text.len() >= BLOCK_BYTES && text.contains(&b'\n') {
                break;
            }
            if text.len() > LINE_BYTES_MAX && !text.contains(&b'\n') {
                bail!("line {line} is longer than {LINE_BYTES_MAX} bytes");
            }
        }
        if text.is_empty() {
            return Ok(true);
        }
        if !reader.fill_buf()?.is_empty()
            && let Some(end) = text.iter().rposition(|byte| *byte == b'\n')
        {
            rest = text.split_off(end + 1);
        }
        let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        if !give(line, text) {
            return Ok(false);
        }
        line += lines;
    }
}

/// An array, or objects over several lines: each becomes a line of its own.
fn whole(reader: &mut dyn BufRead, give: &mut impl FnMut(u64, Vec<u8>) -> bool) -> Result<bool> {
    let mut text = String::new();
    reader.take(WHOLE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > WHOLE_BYTES_MAX {
        bail!("it is not a JSON object a line, and larger than {WHOLE_BYTES_MAX} bytes: convert it (`jq -c`)");
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut line = 1;
    let mut lines = 0;
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = value.context("it is neither a JSON object a line nor JSON as a whole")?;
        match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
            Ok(items) => values.extend(items),
            Err(_) => values.push(value),
        }
        for value in values.drain(..) {
            // Strings hold no line breaks in JSON, so that a break is never part of a value.
            block.extend(value.get().bytes().map(|byte| if byte == b'\n' || byte == b'\r' { b' ' } else { byte }));
            block.push(b'\n');
            lines += 1;
            if block.len() >= BLOCK_BYTES {
                if !give(line, std::mem::take(&mut block)) {
                    return Ok(false);
                }
                line += lines;
                lines = 0;
            }
        }
    }
    Ok(block.is_empty() || give(line, block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn lines(name: &str, content: &[u8]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(name);
        File::create(&path)?.write_all(content)?;
        let mut lines = Vec::new();
        let found = files(&[folder.path().to_owned()])?;
        read(&found, |block| {
            let text = String::from_utf8(block.text).expect("text");
            assert_eq!(block.first_line as usize, lines.len() + 1);
            lines.extend(text.lines().map(str::to_owned));
            true
        })?;
        Ok(lines)
    }

    #[test]
    fn events_are_read_in_every_usual_form() {
        let expected = ["{\"a\":1}", "{\"a\":[2]}"];
        for (name, content) in [
            ("a.jsonl", "{\"a\":1}\n{\"a\":[2]}\n"),
            ("a.jsonl", "{\"a\":1}\r\n{\"a\":[2]}"),
            ("a.json", "[{\"a\":1},{\"a\":[2]}]"),
            ("a.json", "[\n{\"a\":1},\n{\"a\":[2]}\n]\n"),
        ] {
            assert_eq!(lines(name, content.as_bytes()).expect(content), expected, "{content}");
        }
        assert_eq!(
            lines("a.json", b"{\n \"a\": 1\n}\n{\n \"a\": 2 }").expect("pretty"),
            ["{  \"a\": 1 }", "{  \"a\": 2 }"]
        );
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"{\"a\":1}\n{\"a\":[2]}\n").expect("packed");
        assert_eq!(lines("a.jsonl.gz", &packed.finish().expect("packed")).expect("gz"), expected);
        let packed = zstd::encode_all(&b"{\"a\":1}\n{\"a\":[2]}\n"[..], 1).expect("packed");
        assert_eq!(lines("a.jsonl.zst", &packed).expect("zst"), expected);
        assert!(lines("a.txt", b"{}").is_err());
    }

    #[test]
    fn blocks_end_at_line_ends_and_lose_nothing() {
        let long: String =
            (0..60_000).map(|n| format!("{{\"number\":{n},\"pad\":\"{}\"}}\n", "x".repeat(n % 90))).collect();
        let read = lines("a.ndjson", long.as_bytes()).expect("read");
        assert_eq!(read.len(), 60_000);
        assert!(read.iter().map(|line| format!("{line}\n")).eq(long.split_inclusive('\n').map(str::to_owned)));
    }
}
