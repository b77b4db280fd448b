//! Sysmon, on Windows and on Linux.

use super::push_missing;
use model::Fields;
use std::borrow::Cow;

/// Sigma's categories of an event id.
pub(crate) fn categories(id: u32) -> &'static [&'static str] {
    match id {
        1 => &["process_creation"],
        2 => &["file_change"],
        3 => &["network_connection"],
        4 | 16 => &["sysmon_status"],
        5 => &["process_termination"],
        6 => &["driver_load"],
        7 => &["image_load"],
        8 => &["create_remote_thread"],
        9 => &["raw_access_thread"],
        10 => &["process_access"],
        11 => &["file_event"],
        // Which of them it is, rules ask in `EventType`.
        12 => &["registry_event", "registry_add", "registry_delete"],
        13 => &["registry_event", "registry_set"],
        14 => &["registry_event", "registry_rename"],
        15 => &["create_stream_hash"],
        17 | 18 => &["pipe_created"],
        19..=21 => &["wmi_event"],
        22 => &["dns_query"],
        23 => &["file_delete"],
        24 => &["clipboard_change", "clipboard_capture"],
        25 => &["process_tampering"],
        26 => &["file_delete", "file_delete_detected"],
        27 => &["file_block_executable", "file_block"],
        28 => &["file_block_shredding", "file_block"],
        29 => &["file_executable_detected"],
        255 => &["sysmon_error"],
        _ => &[],
    }
}

/// Each hash of `Hashes` under a name of its own.
pub(super) fn aliases(out: &mut Fields<'_>) {
    let Some(at) = out.leaves().iter().position(|leaf| leaf.name == "Hashes" && leaf.value.is_some()) else { return };
    let value = out.leaves()[at].value.clone();
    match value {
        Some(Cow::Borrowed(text)) => {
            for (name, hash) in hashes(text) {
                push_missing(out, name, hash);
            }
        }
        Some(Cow::Owned(text)) => {
            for (name, hash) in hashes(&text) {
                push_missing(out, name, hash.to_owned());
            }
        }
        None => {}
    }
}

fn hashes(text: &str) -> impl Iterator<Item = (&'static str, &str)> {
    text.split(',').filter_map(|pair| {
        let (algorithm, hash) = pair.trim().split_once('=')?;
        let name = match algorithm {
            "MD5" => "md5",
            "SHA1" => "sha1",
            "SHA256" => "sha256",
            "IMPHASH" => "Imphash",
            _ => return None,
        };
        Some((name, hash))
    })
}
