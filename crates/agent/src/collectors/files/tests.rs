use super::follow::{Begin, Follow};
use super::*;
use std::io::Write;

/// A file that is followed, left and followed again, as a restart does.
struct Reader {
    path: PathBuf,
    follow: Option<Follow>,
    place: Option<Place>,
    got: Vec<String>,
    gaps: usize,
}

impl Reader {
    fn new(path: &Path, begin: Begin) -> Self {
        let mut reader = Self { path: path.to_owned(), follow: None, place: None, got: Vec::new(), gaps: 0 };
        reader.open(begin);
        reader
    }

    fn open(&mut self, begin: Begin) {
        let (follow, turn) = Follow::open(self.path.clone(), Multiline::Off, Duration::ZERO, begin).unwrap();
        self.follow = Some(follow);
        self.take(turn);
    }

    fn take(&mut self, turn: Turn) {
        self.gaps += usize::from(turn.gap.is_some());
        for (text, _, place) in turn.messages {
            self.got.push(text);
            self.place = Some(place);
        }
        self.place = turn.moved.or(self.place.take());
    }

    fn turns(&mut self) {
        for _ in 0..8 {
            let turn = self.follow.as_mut().unwrap().turn().unwrap();
            self.take(turn);
        }
    }

    fn restart(&mut self) {
        self.follow = None;
        let place = self.place.clone().unwrap();
        // As it is stored.
        let place: Place = serde_json::from_str(&bookmark(&place)).unwrap();
        self.open(Begin::At(place));
    }

    fn check(&mut self, expected: &[&str]) {
        self.turns();
        assert_eq!(self.got, expected);
        self.got.clear();
    }
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn rename(from: &Path, to: &str) {
    std::fs::rename(from, from.with_file_name(to)).unwrap();
}

#[test]
fn what_was_there_before_is_not_read_and_what_comes_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    append(&path, "old\nhal");
    let mut reader = Reader::new(&path, Begin::End);
    reader.check(&[]);
    append(&path, "f\nnew\npart");
    reader.check(&["half", "new"]);
    reader.restart();
    append(&path, "ial\n");
    reader.check(&["partial"]);
    assert_eq!(reader.gaps, 0);
}

#[test]
fn a_renamed_file_is_read_to_its_end_before_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    append(&path, "header\n1\n");
    let mut reader = Reader::new(&path, Begin::Start);
    reader.check(&["header", "1"]);
    let mut writer = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    rename(&path, "a.log.1");
    writer.write_all(b"2\n").unwrap();
    reader.check(&["2"]);
    writer.write_all(b"3\nno end").unwrap();
    append(&path, "header\n4\n");
    reader.check(&["3", "no end", "header", "4"]);
    // Twice between two looks: the one in between was never seen under its first name.
    append(&path, "5\n");
    rename(&dir.path().join("a.log.1"), "a.log.2");
    rename(&path, "a.log.1");
    append(&path, "header\n6\n");
    rename(&dir.path().join("a.log.2"), "a.log.3");
    rename(&dir.path().join("a.log.1"), "a.log.2");
    rename(&path, "a.log.1");
    append(&path, "header\n7\n");
    reader.check(&["5", "header", "6", "header", "7"]);
    assert_eq!(reader.gaps, 0);
}

#[test]
fn rotation_while_nobody_looks_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    append(&path, "header\n");
    let mut reader = Reader::new(&path, Begin::Start);
    reader.check(&["header"]);
    append(&path, "1\n");
    rename(&path, "a.log.1");
    append(&path, "header\n2\n");
    rename(&dir.path().join("a.log.1"), "a.log.2");
    rename(&path, "a.log.1");
    append(&path, "header\n3\n");
    reader.restart();
    // The restart after the restart begins where that one stands, in a rotated file.
    let turn = reader.follow.as_mut().unwrap().turn().unwrap();
    reader.take(turn);
    assert_eq!(reader.got, ["1"]);
    reader.restart();
    reader.check(&["1", "header", "2", "header", "3"]);
    assert_eq!(reader.gaps, 0);
}

#[test]
fn a_file_that_is_copied_and_cut_is_read_from_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    append(&path, "1\n2\n");
    let mut reader = Reader::new(&path, Begin::Start);
    reader.check(&["1", "2"]);
    append(&path, "3\n");
    std::fs::copy(&path, dir.path().join("a.log.1")).unwrap();
    std::fs::write(&path, "").unwrap();
    reader.check(&["3"]);
    append(&path, "4\n");
    reader.check(&["4"]);
    // The same while nobody looks, and longer than before.
    append(&path, "5\n");
    std::fs::copy(&path, dir.path().join("a.log.1")).unwrap();
    std::fs::write(&path, "6 is longer than what was there before\n").unwrap();
    reader.restart();
    reader.check(&["5", "6 is longer than what was there before"]);
    assert_eq!(reader.gaps, 0);
    // Without a copy the loss is said.
    append(&path, "7\n");
    std::fs::write(&path, "8\n").unwrap();
    reader.check(&["8"]);
    assert_eq!(reader.gaps, 1);
    append(&path, "9\n");
    std::fs::write(&path, "10\n").unwrap();
    reader.restart();
    reader.check(&["10"]);
    assert_eq!(reader.gaps, 2);
}

#[test]
fn a_file_that_goes_and_comes_is_followed_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    append(&path, "");
    let mut reader = Reader::new(&path, Begin::End);
    reader.check(&[]);
    reader.restart();
    std::fs::remove_file(&path).unwrap();
    reader.check(&[]);
    append(&path, "1\n");
    reader.check(&["1"]);
    assert_eq!(reader.gaps, 0);
}

#[test]
fn what_the_agent_writes_itself_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    append(&data.join("x.log"), "");
    append(&dir.path().join("y.log"), "");
    append(&dir.path().join("agent.log"), "");
    std::os::unix::fs::symlink(data.join("x.log"), dir.path().join("link.log")).unwrap();
    let mut own = Own::new(&data);
    let meta = std::fs::metadata(dir.path().join("agent.log")).unwrap();
    own.files.insert((meta.dev(), meta.ino()));
    let has = |name: &str| own.has(&dir.path().join(name));
    assert_eq!((has("data/x.log"), has("link.log"), has("agent.log"), has("y.log")), (true, true, true, false));
}

#[test]
fn what_the_agent_writes_itself_is_never_followed_by_whatever_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("data")).unwrap();
    for name in ["other.log", "own.log", "data/state.log"] {
        append(&path(name), "old\n");
    }
    std::os::unix::fs::symlink(path("data/state.log"), path("link.log")).unwrap();
    std::fs::hard_link(path("own.log"), path("hard.log")).unwrap();
    let (mut context, mut heard) = crate::collectors::test::context();
    let own_log = std::fs::metadata(path("own.log")).unwrap();
    let files = BTreeSet::from([(own_log.dev(), own_log.ino())]);
    context.own = std::sync::Arc::new(Own { dir: path("data").canonicalize().unwrap(), files });
    let patterns = ["*.log", "data/*"].map(|pattern| path(pattern).to_str().unwrap().to_owned()).to_vec();
    let tail = Tail::open(TailConfig { patterns, multiline: None, kind: Kind::File }, context).unwrap();
    let thread = std::thread::spawn(move || tail.run());
    // The place that it begins at is handed in before anything else.
    while heard.all.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
        heard.take();
    }
    for name in ["own.log", "data/state.log", "link.log", "hard.log", "other.log"] {
        append(&path(name), "new\n");
    }
    append(&path("later.log"), "new\n");
    heard.until(|log| log.labels["file"].ends_with("later.log")).unwrap();
    heard.until(|log| log.labels["file"].ends_with("other.log")).unwrap();
    heard.stopper.stop();
    thread.join().unwrap();
    heard.take();
    assert_eq!(heard.logs().count(), 2, "{:?}", heard.logs().collect::<Vec<_>>());
}
