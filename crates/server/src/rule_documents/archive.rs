//! Documents as a zip archive.

use super::name::{is_dotted, is_rule_file};
use super::{ARCHIVE_BYTES_MAX, Found};
use std::io::{Cursor, Read, Write};
use storage::catalog::detection_rules::{DOCUMENT_BYTES_MAX, DOCUMENTS_MAX};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Most entries of an archive: documents, folders and what else lies beside them.
const ENTRIES_MAX: usize = DOCUMENTS_MAX * 2;
/// What an entry of the directory of an archive begins with.
const ENTRY_MARK: [u8; 4] = *b"PK\x01\x02";

/// The documents of an archive. `Err` where it is none, or goes beyond the bounds.
pub fn unpack(bytes: &[u8]) -> Result<Found, String> {
    if bytes.len() > ARCHIVE_BYTES_MAX {
        return Err(format!("the archive has more than {} MiB", ARCHIVE_BYTES_MAX >> 20));
    }
    // Counted before the directory is read, which takes memory for each entry.
    let marks = bytes.windows(ENTRY_MARK.len()).filter(|window| *window == ENTRY_MARK);
    if marks.take(ENTRIES_MAX + 1).count() > ENTRIES_MAX {
        return Err(format!("the archive has more than {ENTRIES_MAX} entries"));
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| format!("it is no zip archive: {error}"))?;
    let mut found = Found::default();
    for number in 0..archive.len() {
        // What an entry is called can be known although it cannot be unpacked.
        let named = archive.name_for_index(number).map(str::to_owned).unwrap_or_default();
        if named.ends_with(['/', '\\']) {
            continue;
        }
        if !is_rule_file(&named) {
            found.skip(&named, "it is no .yml or .yaml");
            continue;
        }
        if is_dotted(&named) {
            found.skip(&named, "it begins with a dot, or is in a folder that does");
            continue;
        }
        let mut entry = match archive.by_index(number) {
            Ok(entry) => entry,
            Err(error) => {
                found.refuse(&named, format!("it cannot be unpacked: {error}"));
                continue;
            }
        };
        if entry.is_symlink() {
            found.skip(&named, "it is a symbolic link");
            continue;
        }
        if entry.is_dir() {
            continue;
        }
        // The size that an entry claims is not trusted: reading ends one byte past the bound.
        let mut text = Vec::new();
        let read = entry.by_ref().take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut text);
        match read {
            Ok(_) => found.add(&named, text)?,
            Err(error) => {
                found.count(text.len())?;
                found.refuse(&named, format!("it cannot be unpacked: {error}"));
            }
        }
    }
    Ok(found)
}

/// An archive of these documents; the same documents give the same bytes.
pub fn pack<'d>(documents: impl IntoIterator<Item = (&'d str, &'d str)>) -> Result<Vec<u8>, zip::result::ZipError> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).unix_permissions(0o644);
    for (name, text) in documents {
        writer.start_file(name, options)?;
        writer.write_all(text.as_bytes())?;
    }
    Ok(writer.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).expect("an entry");
            writer.write_all(bytes).expect("bytes");
        }
        writer.finish().expect("an archive").into_inner()
    }

    fn names(list: &[super::super::Unused]) -> Vec<&str> {
        list.iter().map(|unused| unused.name.as_str()).collect()
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let documents = [("a.yml", "title: Ä\n"), ("linux/b.yaml", "title: b\n")];
        let bytes = pack(documents).expect("an archive");
        assert_eq!(pack(documents).expect("an archive"), bytes, "the same bytes");
        let found = unpack(&bytes).expect("documents");
        let texts: Vec<(&str, &str)> = found.documents.iter().map(|(name, text)| (&**name, &**text)).collect();
        assert_eq!(texts, documents);
        assert!(found.skipped.is_empty() && found.refused.is_empty());
    }

    #[test]
    fn only_rule_files_with_plain_names_are_taken() {
        let bytes = archive(&[
            ("a.yml", b"a"),
            ("./a.yml", b"b"),
            ("../b.yml", b"b"),
            ("/etc/c.yml", b"c"),
            ("d\n.yml", b"d"),
            ("e.md", b"e"),
            (".github/f.yml", b"f"),
            ("g.yml", b"\xff\xfe"),
            ("h.yml", b"h\0"),
        ]);
        let found = unpack(&bytes).expect("documents");
        assert_eq!(found.documents.keys().collect::<Vec<_>>(), ["a.yml"]);
        assert_eq!(names(&found.skipped), ["e.md", ".github/f.yml"]);
        assert_eq!(names(&found.refused), ["./a.yml", "../b.yml", "/etc/c.yml", "d\u{fffd}.yml", "g.yml", "h.yml"]);
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_symlink("a.yml", "/etc/passwd", SimpleFileOptions::default()).expect("a link");
        let found = unpack(&writer.finish().expect("an archive").into_inner()).expect("documents");
        assert!(found.documents.is_empty());
        assert_eq!(names(&found.skipped), ["a.yml"]);
    }

    #[test]
    fn an_archive_that_grows_when_unpacked_is_refused_at_the_bound() {
        let zeros = "\n".repeat(DOCUMENT_BYTES_MAX);
        let names: Vec<String> = (0..70).map(|n| format!("{n}.yml")).collect();
        let bytes = pack(names.iter().map(|name| (&**name, &*zeros))).expect("an archive");
        assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
        assert_eq!(unpack(&bytes), Err("the documents have more than 64 MiB together".to_owned()));
        let one = format!("{zeros}\n");
        let found = unpack(&pack([("a.yml", &*one)]).expect("an archive")).expect("documents");
        assert_eq!(self::names(&found.refused), ["a.yml"]);
    }

    #[test]
    fn an_archive_with_too_many_entries_is_refused_before_it_is_read() {
        let bytes = ENTRY_MARK.repeat(ENTRIES_MAX + 1);
        assert!(unpack(&bytes).expect_err("too many").contains("entries"));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let good = pack([("a.yml", "title: a\n"), ("b.yml", "title: b\n")]).expect("an archive");
        assert!(unpack(b"not an archive").is_err());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = unpack(&bad);
            let _ = unpack(&good[..at]);
        }
        // A wrong checksum is noticed.
        let mut bad = good.clone();
        let at = good.windows(5).position(|window| window == b"a.yml").expect("the name") + 5;
        bad[at + 1] ^= 0x01;
        assert!(unpack(&bad).is_ok_and(|found| found.documents.len() == 1 && found.refused.len() == 1));
    }
}
