use super::*;
use crate::spool::{Spool, SpoolBounds};
use proptest::prelude::*;
use runtime::{ManualClock, Stopper};
use std::fs::File;
use std::sync::Arc;

/// A journal as systemd lays it out, for reading.
struct Writer {
    bytes: Vec<u8>,
    is_compact: bool,
    /// The last array: its offset, its room, how many entries are in it.
    array: (usize, usize, usize),
}

impl Writer {
    fn new(is_compact: bool) -> Self {
        let mut bytes = vec![0; 272];
        bytes[..8].copy_from_slice(b"LPKSHHRH");
        bytes[12] = if is_compact { 8 | 4 | 16 } else { 8 | 4 };
        bytes[72..88].copy_from_slice(&[7; 16]);
        Self { bytes, is_compact, array: (0, 0, 0) }
    }

    fn object(&mut self, kind: u8, flags: u8, content: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 0, 0, 0]);
        self.bytes.extend_from_slice(&(16 + content.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(content);
        offset
    }

    fn data(&mut self, field: &[u8], flags: u8) -> u64 {
        let head = if self.is_compact { 56 } else { 48 };
        let content = [&vec![0; head], field].concat();
        self.object(1, flags, &content)
    }

    fn entry(&mut self, seqnum: u64, fields: &[(&[u8], bool)]) {
        let mut items = Vec::new();
        for (field, is_compressed) in fields {
            let offset = if *is_compressed {
                self.data(&zstd::stream::encode_all(*field, 3).unwrap(), 4)
            } else {
                self.data(field, 0)
            };
            items.extend_from_slice(&offset.to_le_bytes()[..if self.is_compact { 4 } else { 8 }]);
            items.extend_from_slice(if self.is_compact { &[] } else { &[0; 8] });
        }
        let mut content = seqnum.to_le_bytes().to_vec();
        content.extend_from_slice(&(1_000_000 * seqnum).to_le_bytes());
        content.extend_from_slice(&[0; 32]);
        content.extend_from_slice(&items);
        let offset = self.object(3, 0, &content);
        self.link(offset);
        self.bytes[160..168].copy_from_slice(&seqnum.to_le_bytes());
    }

    /// Arrays of 2, 4, 8 … entries, each made when the one before is full: nothing ever moves.
    fn link(&mut self, entry: u64) {
        let item = if self.is_compact { 4 } else { 8 };
        let (offset, room, used) = self.array;
        if used == room {
            let (next_room, link) = if room == 0 { (2, 176) } else { (room * 2, offset + 16) };
            let array = self.object(6, 0, &vec![0; 8 + next_room * item]);
            self.bytes[link..link + 8].copy_from_slice(&array.to_le_bytes());
            self.array = (array as usize, next_room, 0);
        }
        let at = self.array.0 + 24 + self.array.2 * item;
        self.bytes[at..at + item].copy_from_slice(&entry.to_le_bytes()[..item]);
        self.array.2 += 1;
    }

    fn finish(mut self, is_archived: bool) -> Vec<u8> {
        self.bytes[16] = if is_archived { 2 } else { 1 };
        self.bytes
    }
}

fn context(bookmarks: &[(&str, &str)]) -> Context {
    let (stopper, stop) = Stopper::new();
    let fs = Arc::new(wal::sim::SimFilesystem::new(1));
    let spool = Spool::open(fs, Path::new("/s"), SpoolBounds::default(), 1).unwrap();
    let (_, sink, _) = crate::spool::start(spool, std::sync::Arc::new(runtime::SystemClock));
    drop(stopper);
    let bookmarks = bookmarks.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1)));
    Context { sink, stop, clock, bookmarks: Arc::new(bookmarks), own: Arc::default() }
}

fn opened(bytes: &[u8]) -> std::io::Result<Journal> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), bytes).unwrap();
    Journal::open(File::open(path.path()).unwrap())
}

#[test]
fn entries_are_read_in_both_layouts_large_compressed_and_binary_ones_too() {
    for is_compact in [false, true] {
        let mut writer = Writer::new(is_compact);
        let large = [b"MESSAGE=".as_slice(), &b"x".repeat(100_000)].concat();
        writer.entry(1, &[(b"MESSAGE=one", false), (b"PRIORITY=4", false), (b"OTHER=o", false), (b"no sign", false)]);
        writer.entry(2, &[(&large, true), (b"_PID=5", false)]);
        writer.entry(5, &[(b"MESSAGE=a\nb\0\xff=", false)]);
        for seqnum in 6..40 {
            writer.entry(seqnum, &[(format!("MESSAGE=m {seqnum}").as_bytes(), false)]);
        }
        let bytes = writer.finish(false);
        let mut journal = opened(&bytes).unwrap();
        assert_eq!((journal.newest().unwrap(), journal.is_archived().unwrap()), (39, false));
        let entries = journal.read(0, 3).unwrap();
        let expected = BTreeMap::from([("MESSAGE", "one".to_owned()), ("PRIORITY", "4".to_owned())]);
        assert_eq!((entries[0].seqnum, entries[0].realtime_us, &entries[0].fields), (1, 1_000_000, &expected));
        assert_eq!((entries[1].fields["MESSAGE"].len(), &*entries[1].fields["_PID"]), (100_000, "5"));
        assert_eq!(entries[2].fields["MESSAGE"], "a\nb\0\u{fffd}=");
        let rest: Vec<u64> = journal.read(5, 1_000).unwrap().iter().map(|entry| entry.seqnum).collect();
        assert_eq!(rest, (6..40).collect::<Vec<_>>());
        assert!(journal.read(39, 9).unwrap().is_empty());
        for after in 0..40 {
            let first = opened(&bytes).unwrap().read(after, 1).unwrap().first().map(|entry| entry.seqnum);
            let expected = (1..40).filter(|n| !(3..5).contains(n)).find(|n| *n > after);
            assert_eq!(first, expected, "after {after}");
        }
    }
}

#[test]
fn what_is_no_journal_or_a_newer_one_is_refused() {
    assert!(opened(b"LPKSHHRH").is_err());
    assert!(opened(&[0; 4_096]).is_err());
    let mut bytes = Writer::new(true).finish(false);
    bytes[12] |= 64;
    assert_eq!(opened(&bytes).unwrap_err().kind(), std::io::ErrorKind::Unsupported);
}

proptest! {
    #[test]
    fn damage_never_panics_or_loops(flips in prop::collection::vec((0usize..4_000, any::<u8>()), 1..20), is_compact: bool) {
        let mut writer = Writer::new(is_compact);
        for seqnum in 1..20 {
            writer.entry(seqnum, &[(b"MESSAGE=one", seqnum % 2 == 0), (b"PRIORITY=4", false)]);
        }
        let mut bytes = writer.finish(false);
        for (at, to) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
        }
        if let Ok(mut journal) = opened(&bytes) {
            let _ = journal.read(0, 1_000);
            journal.seek_again();
            let _ = journal.read(7, 1_000);
        }
    }
}

fn messages(observations: &[Observation]) -> Vec<String> {
    let message = |o: &Observation| match o.record.clone()?.body? {
        wire::record::Body::Log(log) => Some(log.message),
        wire::record::Body::Metric(_) => None,
    };
    observations.iter().filter_map(message).collect()
}

#[tokio::test]
async fn rotation_restart_and_several_files_neither_lose_nor_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let machine = dir.path().join("0123");
    std::fs::create_dir(&machine).unwrap();
    let write = |name: &str, seqnums: &[u64], is_archived: bool| {
        let mut writer = Writer::new(true);
        for seqnum in seqnums {
            writer.entry(*seqnum, &[(format!("MESSAGE={seqnum}").as_bytes(), false)]);
        }
        // In place, as journald does.
        let path = machine.join(name);
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
        std::io::Write::write_all(&mut file, &writer.finish(is_archived)).unwrap();
    };
    let dirs = || vec![dir.path().to_owned()];
    write("system.journal", &[1, 2], false);
    let mut follow = Follow::open(dirs(), context(&[]), false);
    assert_eq!(messages(&follow.look()), Vec::<String>::new(), "only what comes");
    let bookmark = follow.bookmark();
    // Meanwhile: more entries, a rotation, a user's journal.
    write("system.journal", &[1, 2, 3, 5], true);
    std::fs::rename(machine.join("system.journal"), machine.join("system@1.journal")).unwrap();
    write("system.journal", &[7, 8], false);
    write("user-1000.journal", &[4, 6, 9], false);
    let mut follow = Follow::open(dirs(), context(&[(SOURCE, &bookmark)]), false);
    let observations = follow.look();
    assert_eq!(messages(&observations), ["3", "4", "5", "6", "7", "8", "9"]);
    assert!(follow.look().is_empty());
    let bookmark = observations[2].bookmark.clone().unwrap();
    let mut again = Follow::open(dirs(), context(&[(SOURCE, &bookmark)]), false);
    assert_eq!(messages(&again.look()), ["6", "7", "8", "9"]);
    write("system.journal", &[7, 8, 10], false);
    assert_eq!(messages(&follow.look()), ["10"]);
    assert_eq!(messages(&again.look()), ["10"]);
}

fn entry(fields: &[(&'static str, &str)]) -> Entry {
    let fields = fields.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    Entry { seqnum: 1, realtime_us: 5_000_000, fields }
}

#[tokio::test]
async fn entries_become_events_with_their_labels_and_the_agents_own_do_not() {
    let mut follow = Follow::open(Vec::new(), context(&[]), false);
    let ssh = entry(&[
        ("MESSAGE", "Failed password for root from 192.0.2.7 port 1 ssh2"),
        ("PRIORITY", "6"),
        ("SYSLOG_FACILITY", "4"),
        ("SYSLOG_IDENTIFIER", "sshd"),
        ("_SYSTEMD_UNIT", "ssh.service"),
    ]);
    let event = follow.event(&ssh).unwrap();
    assert_eq!((&*event.stream, event.ts_unix_ns), ("auth", 5_000_000_000));
    assert_eq!((&*event.labels["event_type"], &*event.labels["severity"]), ("ssh_fail", "warning"));
    assert_eq!((&*event.labels["unit"], &*event.labels["source"]), ("ssh.service", "journalctl"));
    follow.has_auth = true;
    assert_eq!(follow.event(&ssh), None, "the log of logins brings it");
    let audit = entry(&[("MESSAGE", "SYSCALL arch=c000003e"), ("_TRANSPORT", "audit")]);
    assert_eq!(follow.event(&audit).unwrap().stream, "systemd");
    follow.has_audit = true;
    assert_eq!(follow.event(&audit), None, "the collector of audit records brings it");
    let unit = |priority| entry(&[("MESSAGE", "m"), ("PRIORITY", priority), ("_SYSTEMD_UNIT", "a.service")]);
    for (priority, severity) in [("0", "critical"), ("2", "critical"), ("3", "warning"), ("5", "info"), ("", "info")] {
        let event = follow.event(&unit(priority)).unwrap();
        assert_eq!((&*event.stream, &*event.labels["severity"]), ("systemd", severity), "{priority}");
    }
    for own in [("_COMM", "sm-agent"), ("_SYSTEMD_UNIT", "sm-agent.service"), ("MESSAGE", "")] {
        assert_eq!(follow.event(&entry(&[("MESSAGE", "m"), own])), None, "{own:?}");
    }
}
