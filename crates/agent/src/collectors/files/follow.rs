//! One followed name: which file is behind it now, which ones were, and how far each is read.

use super::lines::{Lines, Message, Multiline};
use super::place::{Place, fingerprint, open_regular, siblings};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Read in one turn of one file, so that others have theirs.
const TURN_BYTES_MAX: usize = 256 * 1024;
/// A message of several lines is whole when nothing came for so long.
const OPEN_MAX: Duration = Duration::from_secs(1);

/// What a turn brought.
#[derive(Debug, Default)]
pub struct Turn {
    /// A message and where the source stands behind it.
    pub messages: Vec<(String, bool, Place)>,
    /// Where the source stands now, if it moved without a message.
    pub moved: Option<Place>,
    /// Something is lost: in words.
    pub gap: Option<String>,
    /// There is more to read at once.
    pub has_more: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    dev: u64,
    ino: u64,
    lines: Lines,
    print: Option<(u64, String)>,
    /// It has another name by now: whoever writes to it will soon write to its successor. So long it is waited.
    settle: Option<Duration>,
    grew: Instant,
}

impl Open {
    fn new(file: File, offset: u64, multiline: &Multiline, settle: Option<Duration>) -> io::Result<Self> {
        let meta = file.metadata()?;
        let lines = Lines::new(multiline.clone(), offset);
        Ok(Self { dev: meta.dev(), ino: meta.ino(), file, lines, print: None, settle, grew: Instant::now() })
    }

    /// The place at an offset. The fingerprint is read again only while it grows.
    fn place(&mut self, offset: u64) -> io::Result<Place> {
        match &self.print {
            Some((bytes, print)) if *bytes >= 1_024 || *bytes == offset => {
                let (print_bytes, print) = (*bytes, print.clone());
                Ok(Place { dev: self.dev, ino: self.ino, offset, print_bytes, print })
            }
            _ => {
                let place = Place::of(&self.file, offset)?;
                self.print = Some((place.print_bytes, place.print.clone()));
                Ok(place)
            }
        }
    }

    /// Whether the file was cut or written anew under the same name.
    fn was_cut(&self) -> io::Result<bool> {
        let offset = self.lines.offset();
        if self.file.metadata()?.len() < offset {
            return Ok(true);
        }
        let Some((bytes, print)) = &self.print else { return Ok(false) };
        Ok(fingerprint(&self.file, *bytes)?.is_none_or(|now| now != *print))
    }
}

/// A followed name.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    multiline: Multiline,
    settle: Duration,
    /// Oldest first; the last is what the name stands for now, unless that is gone.
    files: VecDeque<Open>,
    last_seen: (i64, i64),
}

/// Where to begin.
#[derive(Debug, Clone)]
pub enum Begin {
    /// It was read before.
    At(Place),
    /// It was there before anybody followed it: only what comes.
    End,
    /// It came after.
    Start,
}

impl Follow {
    /// Finds the file, or files, that are to be read.
    pub fn open(path: PathBuf, multiline: Multiline, settle: Duration, begin: Begin) -> io::Result<(Self, Turn)> {
        let mut follow = Self { path, multiline, settle, files: VecDeque::new(), last_seen: (0, 0) };
        let mut turn = Turn::default();
        let now = open_regular(&follow.path)?;
        match begin {
            Begin::Start => follow.take(now, 0, &mut turn)?,
            Begin::End => {
                let end = now.as_ref().map_or(Ok(0), end_of_lines)?;
                follow.take(now, end, &mut turn)?;
            }
            Begin::At(place) => follow.find(now, &place, &mut turn)?,
        }
        Ok((follow, turn))
    }

    fn take(&mut self, file: Option<File>, offset: u64, turn: &mut Turn) -> io::Result<()> {
        if let Some(file) = file {
            let mut open = Open::new(file, offset, &self.multiline, None)?;
            turn.moved = Some(open.place(offset)?);
            self.files.push_back(open);
        }
        Ok(())
    }

    /// After a restart: the file that was being read, wherever it is now, and those that came after it.
    fn find(&mut self, now: Option<File>, place: &Place, turn: &mut Turn) -> io::Result<()> {
        // By its number first: files can begin alike.
        let is_same = |file: &File| place.is_in(file).and_then(|is| Ok(is && is_inode(file, place)?));
        let is_copy = |file: &File| place.print_bytes > 0 && place.is_in(file).is_ok_and(|is| is);
        let mut others = siblings(&self.path)?;
        let same = others.iter().position(|sibling| is_same(&sibling.file).is_ok_and(|is| is));
        if let Some(file) = &now
            && (is_same(file)? || (same.is_none() && is_copy(file)))
        {
            self.files.push_back(Open::new(file.try_clone()?, place.offset, &self.multiline, None)?);
            return Ok(());
        }
        match same.or_else(|| others.iter().position(|sibling| is_copy(&sibling.file))) {
            Some(at) => {
                for (i, sibling) in others.drain(at..).enumerate() {
                    let offset = if i == 0 { place.offset } else { 0 };
                    if let Some(before) = self.files.back_mut() {
                        before.settle = Some(Duration::ZERO);
                    }
                    self.files.push_back(Open::new(sibling.file, offset, &self.multiline, Some(self.settle))?);
                }
            }
            None if place.offset > 0 || place.print_bytes > 0 => turn.gap = Some(self.gap(place.offset)),
            None => {}
        }
        if self.files.is_empty() {
            return self.take(now, 0, turn);
        }
        if let Some(file) = now {
            self.add(file)?;
        }
        Ok(())
    }

    /// What the name stands for now; unless it was renamed meanwhile, and found under its new name.
    fn add(&mut self, file: File) -> io::Result<()> {
        let meta = file.metadata()?;
        if !self.files.iter().any(|open| (open.dev, open.ino) == (meta.dev(), meta.ino())) {
            self.files.push_back(Open::new(file, 0, &self.multiline, None)?);
        }
        Ok(())
    }

    fn gap(&self, offset: u64) -> String {
        format!("{} was replaced: what it held behind byte {offset} and was not read is lost", self.path.display())
    }

    /// Looks at what is behind the name now.
    fn look(&mut self, turn: &mut Turn) -> io::Result<()> {
        let now = match std::fs::metadata(&self.path) {
            Ok(meta) => ((meta.dev(), meta.ino()), (meta.mtime(), meta.mtime_nsec())),
            // It was renamed or removed; what it holds is still read, and its writer may still write.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(current) = self.files.back_mut()
            && (current.dev, current.ino) == now.0
        {
            if now.1 != self.last_seen {
                self.last_seen = now.1;
                if current.was_cut()?
                    && let Some(file) = open_regular(&self.path)?
                {
                    self.cut(file, turn)?;
                }
            }
            return Ok(());
        }
        let Some(file) = open_regular(&self.path)? else { return Ok(()) };
        let Some(current) = self.files.back_mut() else {
            return self.take(Some(file), 0, turn);
        };
        // Rotated. Between the file that was read and the one that is there now, there may have been others.
        let old = (current.dev, current.ino);
        let old_modified = current.file.metadata().map(|m| (m.mtime(), m.mtime_nsec()))?;
        current.settle = Some(self.settle);
        current.grew = Instant::now();
        let last = self.files.len() - 1;
        // Whoever writes to a file that was renamed is at most one rotation behind.
        self.files.iter_mut().take(last).for_each(|open| open.settle = Some(Duration::ZERO));
        let others = siblings(&self.path)?;
        let place_of_old = others.iter().position(|sibling| (sibling.dev, sibling.ino) == old);
        for (i, sibling) in others.into_iter().enumerate() {
            let is_known = self.files.iter().any(|open| (open.dev, open.ino) == (sibling.dev, sibling.ino));
            let is_newer = place_of_old.map_or(sibling.modified > old_modified, |old| i > old);
            if !is_known && is_newer {
                if let Some(before) = self.files.back_mut() {
                    before.settle = Some(Duration::ZERO);
                }
                self.files.push_back(Open::new(sibling.file, 0, &self.multiline, Some(self.settle))?);
            }
        }
        self.add(file)
    }

    /// The file was emptied in place, perhaps after a copy was made of it.
    fn cut(&mut self, file: File, turn: &mut Turn) -> io::Result<()> {
        let Some(mut current) = self.files.pop_back() else { return Ok(()) };
        let offset = current.lines.offset();
        // As far as whole lines were handed on; the copy has the rest.
        let place = match current.print.take() {
            Some((print_bytes, print)) => Place { dev: current.dev, ino: current.ino, offset, print_bytes, print },
            None => Place { dev: current.dev, ino: current.ino, offset, print_bytes: 0, print: String::new() },
        };
        let copy = siblings(&self.path)?.into_iter().rev().find(|sibling| {
            place.print_bytes > 0
                && (sibling.dev, sibling.ino) != (place.dev, place.ino)
                && place.is_in(&sibling.file).is_ok_and(|is| is)
        });
        match copy {
            Some(copy) => {
                // The lines that are open go on in the copy.
                current.file = copy.file;
                (current.dev, current.ino) = (copy.dev, copy.ino);
                // Nobody writes to a copy.
                current.settle = Some(Duration::ZERO);
                self.files.push_back(current);
            }
            None if offset > 0 => turn.gap = Some(self.gap(offset)),
            None => {}
        }
        self.files.push_back(Open::new(file, 0, &self.multiline, None)?);
        Ok(())
    }

    /// Reads on.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let mut turn = Turn::default();
        self.look(&mut turn)?;
        let Some(open) = self.files.front_mut() else { return Ok(turn) };
        let (mut out, mut read) = (Vec::new(), 0);
        let mut at_end = open.file.metadata()?.len() <= open.lines.offset();
        let mut buffer = if at_end { Vec::new() } else { vec![0; 64 * 1024] };
        while !at_end && read < TURN_BYTES_MAX {
            let n = open.file.read_at(&mut buffer, open.lines.offset())?;
            // Whatever comes behind a short read brings news of its own.
            at_end = n < buffer.len();
            read += n;
            open.lines.push(buffer.get(..n).unwrap_or_default(), &mut out);
        }
        if read > 0 {
            open.grew = Instant::now();
        }
        let quiet = open.grew.elapsed();
        let is_done = at_end && open.settle.is_some_and(|settle| quiet >= settle);
        if is_done {
            open.lines.finish(&mut out);
        } else if quiet >= OPEN_MAX {
            open.lines.idle(&mut out);
        }
        for Message { text, end, is_cut } in out {
            turn.messages.push((text, is_cut, open.place(end)?));
        }
        turn.has_more = !at_end;
        if is_done {
            self.files.pop_front();
            turn.has_more = !self.files.is_empty();
            if let Some(next) = self.files.front_mut() {
                // What is behind is behind for good.
                turn.moved = Some(next.place(next.lines.offset())?);
            }
        }
        Ok(turn)
    }

    /// Whether the name's file is gone and all of it is read.
    pub fn is_over(&self) -> bool {
        self.files.is_empty()
    }
}

fn is_inode(file: &File, place: &Place) -> io::Result<bool> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()) == (place.dev, place.ino))
}

/// Where the last whole line ends: one that is being written is wanted whole.
fn end_of_lines(file: &File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let from = len.saturating_sub(64 * 1024);
    let mut tail = vec![0; (len - from) as usize];
    match file.read_exact_at(&mut tail, from) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(file.metadata()?.len()),
        Err(error) => return Err(error),
    }
    let last = tail.iter().rposition(|b| *b == b'\n');
    Ok(last.map_or(if from == 0 { 0 } else { len }, |at| from + at as u64 + 1))
}

/// The file's name for the log and for labels.
pub fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
